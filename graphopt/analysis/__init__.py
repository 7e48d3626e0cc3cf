"""Read-only questions about a model, answered as dataclasses."""
