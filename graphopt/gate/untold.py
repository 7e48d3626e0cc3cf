"""What is raised where a line cannot be judged."""

from __future__ import annotations

__all__ = ["Untold"]


class Untold(Exception):  # noqa: N818 - it says why there is no answer
    """What a line asks for cannot be told; the text says why. A gate is closed then."""
