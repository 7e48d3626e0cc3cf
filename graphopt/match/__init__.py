"""Patterns as data, and the one engine that applies rules."""
