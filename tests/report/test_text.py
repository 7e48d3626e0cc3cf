from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.report.text import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("größe 大 →", "größe 大 →"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("abc\u202ecba", r"abc\u202ecba"),
        ("\u200b\ufeff", r"\u200b\ufeff"),
        ("\udc80", r"\udc80"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
    ],
)
def test_control_and_direction_characters_are_spelled_out(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_long_text_is_cut() -> None:
    assert shown("x" * 1000) == "x" * 1000
    assert shown("x" * 1001) == "x" * 999 + "…"
    assert shown("abcdef", limit=4) == "abc…"
    assert shown("\x1b" * 3, limit=4) == r"\x1…"


@settings(deadline=None)
@given(st.text())
def test_whatever_it_is_given_it_is_one_harmless_line(text: str) -> None:
    safe = shown(text)
    assert len(safe) <= 1000
    assert not any(unicodedata.category(c)[0] == "C" for c in safe)
    safe.encode()
