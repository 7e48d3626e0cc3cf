"""What onnxruntime makes of a model when it loads it: the graph that really runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
import onnxruntime as ort

from graphopt.errors import MachineError
from graphopt.graph.carry import Carried
from graphopt.graph.save import runnable
from graphopt.run.machine import HERE, Machine
from graphopt.run.placement import Placement, copies
from graphopt.run.session import Session

__all__ = ["Optimized", "optimized"]

_CONFIG: Final = "session.optimized_model_external_initializers_"
_LARGE: Final = 1 << 16
"""Bytes from which a constant is not read back. A file with all of them inside may be larger than it can be."""


@dataclass(frozen=True)
class Optimized:
    """An optimized graph. Its large constants have a name, a type and a shape, but nothing can be read of them."""

    graph: ir.Graph
    provider: str
    """The one it was made for and runs on."""
    placement: Placement
    """Which nodes it runs, and how often values are copied between devices."""


def optimized(model: ir.Model, machine: Machine = HERE, *, fuse: bool = True) -> Optimized:
    """The graph that onnxruntime runs in place of `model` on a machine.

    Args:
        model: is not changed.
        machine: what it runs on.
        fuse: all optimizations. False: those of the basic level, behind which QuantizeLinear and DequantizeLinear
            still stand, moved to where the fusions look for them.

    Raises:
        InputError: onnxruntime does not load the model.
        MachineError: the device is missing, or there is no room for a temporary file.
    """
    level = ort.GraphOptimizationLevel

    def adjust(options: ort.SessionOptions) -> None:
        options.graph_optimization_level = level.ORT_ENABLE_ALL if fuse else level.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry(f"{_CONFIG}file_name", f"{path.name}.data")
        options.add_session_config_entry(f"{_CONFIG}min_size_in_bytes", str(_LARGE))

    try:
        with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
            path = Path(folder) / "model.onnx"
            content = runnable(model, Carried())
            session = Session(content, device=machine.device, threads=machine.threads, seed=machine.seed, adjust=adjust)
            written = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as problem:
        raise MachineError(
            f"no temporary file can be written: {problem.strerror or problem}; make room, or set TMPDIR"
        ) from problem
    graph = ir.from_proto(written).graph
    return Optimized(graph, session.provider, replace(session.placement, copies=copies(graph)))
