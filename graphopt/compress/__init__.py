"""Lossy: what becomes of a model under a plan."""
