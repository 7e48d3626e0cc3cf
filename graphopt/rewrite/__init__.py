"""Lossless rewriting: clean, fold, fuse."""
