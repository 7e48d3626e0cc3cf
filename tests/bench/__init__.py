"""Benchmarks against other optimizers. They are scripts: nothing here is run by the tests but what counts."""
