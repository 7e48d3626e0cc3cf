"""Strings."""

from __future__ import annotations

from graphopt.ops.spec import family

__all__ = ["SPECS"]

SPECS = family(
    {
        "RegexFullMatch": "whether each string matches the pattern as a whole",
        "StringConcat": "strings one after another, element by element",
        "StringNormalizer": "strings in one case, without stop words",
        "StringSplit": "parts of each string between delimiters, and how many",
        "TfIdfVectorizer": "counts or weights of n-grams; (C,) or (N, C) to (…, max index + 1)",
    }
)
