"""The optimizers that are compared: `python -m tests.bench.tools TOOL SOURCE TARGET OPTIONS`, a process for each.

Everything a tool needs is imported when it runs: its imports are a part of what it costs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["TOOLS"]


def _python(_source: str, _target: str, **_options: Any) -> None:
    """Nothing: what an interpreter costs."""


def _graphopt(source: str, target: str, **options: Any) -> None:
    import graphopt

    graphopt.optimize(source, unverified=True, **options).save(target)


def _onnxsim(source: str, target: str) -> None:
    import onnx
    import onnxsim

    model, passed = onnxsim.simplify(source)
    if not passed:
        raise RuntimeError("its own check failed")
    onnx.save(model, target)


def _onnxslim(source: str, target: str) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(source), target)


def _onnxscript(source: str, target: str) -> None:
    import onnx_ir as ir
    from onnxscript import optimizer

    model = ir.load(source)
    optimizer.optimize(model)
    ir.save(model, target)


Tool = Callable[..., None]

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "graphopt": _graphopt,
        "onnxsim": _onnxsim,
        "onnxslim": _onnxslim,
        "onnxscript": _onnxscript,
        "python": _python,
    }
)

if __name__ == "__main__":
    TOOLS[sys.argv[1]](sys.argv[2], sys.argv[3], **json.loads(sys.argv[4]))
