"""Imports that wait until they are needed.

onnx-ir imports sympy, whose import takes longer than optimizing a small model, for arithmetic on dimensions that
graphopt never does. Here those modules are loaded when something is first asked of them, the way the standard library
documents it (`importlib.util.LazyLoader`). Where they were imported before graphopt, nothing happens, and once they are
found, imports are as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Final

__all__ = ["defer"]

_DEFERRED: Final = frozenset({"sympy", "onnx_ir._symbolic_shapes"})


class _Deferring(MetaPathFinder):
    """Finds what is to be deferred, leaves everything else to others, and goes when all is found."""

    def __init__(self) -> None:
        self._wanted = _DEFERRED - sys.modules.keys()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._wanted:
            return None
        self._wanted -= {fullname}
        if not self._wanted:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def defer() -> None:
    """From now on, load the modules that graphopt hardly needs at their first use."""
    if not sys.modules.keys() >= _DEFERRED and not any(isinstance(finder, _Deferring) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Deferring())
