"""Weights and values as integers: where, with which steps, and how they are rounded."""
