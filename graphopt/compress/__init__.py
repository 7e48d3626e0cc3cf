"""Compression that loses something: a model is cut to a plan, and what is left of it is fitted to what it was."""
