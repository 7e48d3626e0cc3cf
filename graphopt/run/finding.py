"""What is said of a machine and an installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One fact; `advice` says what to do about a warning or an error, and is empty otherwise."""

    level: Literal["ok", "warn", "error"]
    text: str
    advice: str = ""
