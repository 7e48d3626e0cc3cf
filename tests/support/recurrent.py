"""Recurrent layers of every form, some of whose units are copies of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tests.support.models import source

__all__ = ["CELLS", "COPIES", "UNITS", "Cell", "declared", "layer"]

Array = NDArray[Any]
UNITS, COPIES, INPUTS, OUTPUTS, STEPS, SAMPLES = 8, 2, 3, 4, 6, 40
_GATES: Final = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Cell:
    op: str
    direction: str = "forward"
    bias: bool = True
    states: bool = False
    lengths: bool = False
    peepholes: bool = False
    attributes: str = ""

    def __str__(self) -> str:
        words = [name for name in ("bias", "states", "lengths", "peepholes") if getattr(self, name)]
        return "-".join([self.op, self.direction, *words, *self.attributes.replace(" ", "").split(",")])


CELLS: Final = (
    Cell("RNN"),
    Cell("RNN", "reverse", bias=False, lengths=True),
    Cell("GRU"),
    Cell("GRU", "bidirectional", states=True),
    Cell("GRU", attributes=", linear_before_reset = 1"),
    Cell("GRU", "bidirectional", bias=False, states=True, lengths=True, attributes=", linear_before_reset = 1"),
    Cell("LSTM"),
    Cell("LSTM", "bidirectional", states=True, lengths=True, peepholes=True),
    Cell("LSTM", "reverse", bias=False),
)


def layer(cell: Cell, output: str, seed: int = 0) -> tuple[ir.Model, dict[str, Array]]:
    """One layer with a product behind it, and a feed. Its last units are copies of the first ones.

    Args:
        cell: the form of the layer.
        output: y, the states of all steps, (steps, directions, samples, units); or z, the product of these.
        seed: of the feed; the weights are always the same.
    """
    random, gates = np.random.default_rng(0), _GATES[cell.op]
    directions = 2 if cell.direction == "bidirectional" else 1

    def units(*shape: int) -> Array:
        """Numbers whose units, on axis −2, have copies."""
        found = random.standard_normal((directions, *shape)) / 2
        found[..., -COPIES:, :] = found[..., :COPIES, :]
        return found

    arrays = {
        "w": units(gates, UNITS, INPUTS).reshape(directions, -1, INPUTS),
        "r": units(gates, UNITS, UNITS).reshape(directions, -1, UNITS),
        "b": units(2 * gates, UNITS, 1).reshape(directions, -1),
        "h": units(UNITS, SAMPLES).swapaxes(1, 2),
        "c": units(UNITS, SAMPLES).swapaxes(1, 2),
        "p": units(3, UNITS, 1).reshape(directions, -1),
        "v": random.standard_normal((UNITS, OUTPUTS)),
    }
    states = cell.states * (["h", "c"] if cell.op == "LSTM" else ["h"])
    names = ["x", "w", "r", "b" * cell.bias, "n" * cell.lengths, *(states or ["", ""]), "p" * cell.peepholes]
    width = UNITS if output == "y" else OUTPUTS
    model = source(
        f"""g (float[S,N,{INPUTS}] x{", int32[N] n" * cell.lengths}) => (float[S,D,N,{width}] {output})
        <{declared({name: arrays[name] for name in arrays if name in {*names, "v"}})}> {{
            y = {cell.op}<hidden_size = {UNITS}, direction = "{cell.direction}"{cell.attributes}>({
            ", ".join(names).rstrip(", ")
        })
            z = MatMul(y, v) }}"""
    ).model
    random = np.random.default_rng(seed)
    feed = {"x": random.standard_normal((STEPS, SAMPLES, INPUTS)).astype(np.float32)}
    return model, feed | ({"n": random.integers(1, STEPS + 1, SAMPLES).astype(np.int32)} if cell.lengths else {})


def declared(arrays: Mapping[str, Array]) -> str:
    """Constants, as text."""
    return ", ".join(
        f"float[{','.join(map(str, a.shape))}] {n} = {{{','.join(f'{v:.6f}' for v in a.ravel())}}}"
        for n, a in arrays.items()
    )
