"""Weights of few bits, in blocks with a scale each, that are multiplied with data as it is.

    blocks{bits=4, size=32}    half a byte for each weight, and four and a half for each block of 32

Standard ONNX says it with DequantizeLinear, from opset 21 on (`block_size`); onnxruntime has an operator of its own,
MatMulNBits, that unpacks as it multiplies, and for a target that takes it, that is written:

    MatMul(x, W)    ─►  MatMul(x, DequantizeLinear(codes, scales, zeros))      axis: the input channels
                    ─►  MatMulNBits(x, codes, scales, zeros)

Blocks lie along the input channels, for each output channel. Codes are unsigned and the code of zero is free, but for
runtimes that want it in the middle. The file shrinks; whether it is faster depends on how much of the time goes into
reading weights: with one row of data nearly all, with many rows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt import ops
from graphopt.compress.integers.packing import Packing
from graphopt.compress.integers.round import Rounded
from graphopt.compress.integers.steps import Steps
from graphopt.compress.writer import Writer
from graphopt.errors import UsageError
from graphopt.graph.nodes import key
from graphopt.ops.runtime import DOMAIN
from graphopt.targets import Target

__all__ = ["Blocks"]

Array = NDArray[Any]

BITS: Final = (4, 8)
SIZES: Final = (16, 32, 64, 128, 256)
_OPERATOR: Final = "MatMulNBits"
_STANDARD: Final = 21
_IR: Final = 10
"""From which on files may have types of 4 bits."""
_HALF: Final = 4
"""Bits of which two codes make a byte."""
_EIGHT: Final = 4
"""In onnxruntime's words, that data may be rounded to 8 bits while it is multiplied: else it is slow on CPUs."""
_TYPES: Final = {
    (4, True): ir.DataType.UINT4,
    (4, False): ir.DataType.INT4,
    (8, True): ir.DataType.UINT8,
    (8, False): ir.DataType.INT8,
}
"""By bits, and whether the zero is free."""


@dataclass(frozen=True)
class Blocks(Packing):
    """See the module's docstring.

    Measured: models/digits_vit.onnx with size=16 has 28 % of its bytes with bits=4 and 38 % with bits=8, and the same
    accuracy; with 32 images it takes 2.5 times as long with MatMulNBits, 6.6 times with DequantizeLinear.
    """

    name: ClassVar[str] = "blocks"
    summary: ClassVar[str] = "weights of matrices in 4 or 8 bits, a scale for each block of them; data stays as it is"
    pays: ClassVar[str] = "in bytes, on any target"
    rules: ClassVar[dict[str, str]] = {}

    bits: int = 4
    """Of each weight: 4 or 8."""
    size: int = 32
    """Weights that share a scale."""

    def __post_init__(self) -> None:
        """Insist on what there is.

        Raises:
            UsageError: a value is out of range.
        """
        for name, values in (("bits", BITS), ("size", SIZES)):
            if (given := getattr(self, name)) not in values:
                raise UsageError(f"blocks{{{name}={given}}} is none: give one of {', '.join(map(str, values))}")

    def opset(self, target: Target) -> int:
        """See `Packing`."""
        return 1 if _fused(target) else _STANDARD

    def steps(self, target: Target) -> Steps:
        """See `Packing`."""
        return Steps(self.bits, self.size, free=not target.centred)

    def left(self, linear: ops.Linear) -> str:
        """See `Packing`."""
        odd = linear.reduction % self.size
        no_block = f"its {linear.reduction} input channels are no multiple of {self.size}" if odd else ""
        return super().left(linear) or no_block

    def form(self) -> str:
        """See `Packing`."""
        return f"{self.bits} bits, blocks of {self.size}"

    def bytes(self, out: int, columns: int) -> int:
        """See `Packing`: codes, and for each block a scale in single precision and a zero."""
        blocks = columns // self.size
        return out * (columns * self.bits // 8 + 4 * blocks + -(-blocks * self.bits // 8))

    def write(self, writer: Writer, linear: ops.Linear, made: Rounded, target: Target) -> None:
        """See `Packing`."""
        scale = (made.scale[0] / np.float32(linear.alpha)).astype(np.float32)
        zero = None if made.zero is None else made.zero[0]
        codes = made.codes[0].reshape(*scale.shape, self.size)
        codes = codes if zero is None else codes + zero[..., None]
        if _fused(target):
            self._operator(writer, linear, codes, made.scale[0], zero)
        else:
            self._standard(writer, linear, codes.reshape(len(codes), -1), scale, zero)

    def _standard(self, writer: Writer, linear: ops.Linear, codes: Array, scale: Array, zero: Array | None) -> None:
        kind, name = _TYPES[self.bits, zero is not None], _name(linear)
        inputs = [
            writer.constant(f"{name}/integers", linear.laid(codes), kind),
            writer.constant(f"{name}/scale", linear.laid(scale)),
        ]
        if zero is not None:
            inputs.append(writer.constant(f"{name}/zero", linear.laid(zero), kind))
        back = writer.node(
            "DequantizeLinear", inputs, f"{name}/dequantize", {"axis": linear.w_in, "block_size": self.size}
        )
        weight = linear.node.inputs[linear.weight]
        back.outputs[0].type, back.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), weight.shape if weight else None
        writer.graph.insert_before(linear.node, back)
        writer.give(linear.node, linear.weight, back.outputs[0])
        writer.model.ir_version = max(writer.model.ir_version, _IR)

    def _operator(self, writer: Writer, linear: ops.Linear, codes: Array, scale: Array, zero: Array | None) -> None:
        node, name = linear.node, _name(linear)
        inputs = [node.inputs[linear.x]]
        inputs.append(writer.constant(f"{name}/integers", self._bytes(codes)))
        inputs.append(writer.constant(f"{name}/scale", scale))
        inputs.append(None if zero is None else writer.constant(f"{name}/zero", self._bytes(zero)))
        if linear.bias_value is not None and linear.beta:
            bias = (linear.beta * linear.bias_vector()).astype(np.float32)
            inputs += [None, writer.constant(f"{key(node)}/bias", bias)]
        sizes = {"K": linear.in_channels, "N": linear.channels, "bits": self.bits, "block_size": self.size}
        made = writer.node(_OPERATOR, inputs, f"{name}/product", sizes | {"accuracy_level": _EIGHT}, domain=DOMAIN)
        writer.replace(node, [made])

    def _bytes(self, codes: Array) -> Array:
        """(…, n) codes as bytes: two of 4 bits in one, the first one in its lower half."""
        codes = codes.astype(np.uint8)
        if self.bits != _HALF:
            return codes
        even = np.concatenate([codes, np.zeros((*codes.shape[:-1], codes.shape[-1] % 2), np.uint8)], axis=-1)
        found: Array = even[..., ::2] | even[..., 1::2] << _HALF
        return found


def _fused(target: Target) -> bool:
    """Whether a target has the operator that unpacks as it multiplies."""
    return f"{DOMAIN}::{_OPERATOR}" in target.operators


def _name(linear: ops.Linear) -> str:
    value = linear.node.inputs[linear.weight]
    return str(value.name) if value is not None else key(linear.node)
