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


def _graphopt_int8(source: str, target: str, **options: Any) -> None:
    import graphopt

    graphopt.optimize(source, int8=True, target="cpu", device="cpu", **options).save(target)


def _onnxruntime(source: str, target: str, *, data: str, samples: int, threads: int = 0, **options: str) -> None:
    """Static quantization into QDQ, with one scale per channel; `options` are names of onnxruntime's enumerations."""
    from onnxruntime import quantization

    from graphopt.graph.load import load
    from graphopt.run.data import open_data
    from graphopt.run.session import Session

    _ = threads  # it takes what it wants
    inputs = Session(load(source).runnable).inputs
    rows = (
        {name: value[i : i + 1] for name, value in feed.items()}
        for feed, _ in open_data(data, inputs).pairs()
        for i in range(len(next(iter(feed.values()))))
    )

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        left = samples

        def get_next(self) -> Any:
            self.left -= 1
            return next(rows, None) if self.left >= 0 else None

    kinds = {
        "activation_type": quantization.QuantType,
        "weight_type": quantization.QuantType,
        "calibrate_method": quantization.CalibrationMethod,
    }
    quantization.quant_pre_process(source, f"{target}.simple", skip_symbolic_shape=True)
    quantization.quantize_static(
        f"{target}.simple",
        target,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        **{name: getattr(kinds[name], value) for name, value in options.items()},
    )


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
        "graphopt-int8": _graphopt_int8,
        "onnxruntime-int8": _onnxruntime,
        "onnxsim": _onnxsim,
        "onnxslim": _onnxslim,
        "onnxscript": _onnxscript,
        "python": _python,
    }
)

if __name__ == "__main__":
    TOOLS[sys.argv[1]](sys.argv[2], sys.argv[3], **json.loads(sys.argv[4]))
