"""Why onnxruntime leaves a product between quantizers in float.

It is looked up in the graph behind onnxruntime's basic optimizations. In there QuantizeLinear and DequantizeLinear have
been moved across what only moves elements, each reader has a DequantizeLinear of its own, float weights and biases
have been quantized as far as that is done, and an Add has become the bias of the MatMul before it. With Q and DQ for
the two operators, and what `targets.CPU` wants, a product is one of integers on x86 if

    data      come from a DQ of 8 bits. int8 counts as uint8 where a Q makes it and one DQ alone reads it; what stays
              int8 is refused, or asks for an int8 weight where the operator is one of `signed`
    result    goes to one Q and nowhere else, or to no Q at all where the operator is none of `results`. A Relu or Clip
              that only a Q reads is as good as gone if that cuts off as much; another one that is read once is in the
              way, if it alone reads the result
    types     of data and result are equal, int8 counting as above
    weight    comes from a DQ of 8 bits
    bias      comes from a DQ of int32, around 0 and in steps of the products (to 1 %) where the operator is one of
              `stepped`. With any bias, alpha and beta are 1

What is on integers need not be right, however: onnxruntime also takes a weight with one scale for each index of another
axis than that of the output channels, and QGemm a bias in any steps, and computes something else.

Source: experiments with onnxruntime 1.31 on x86; onnxruntime, `core/optimizer/qdq_transformer`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.graph.nodes import array, attr, input_at, readers
from graphopt.lower.quant import EIGHT_BITS, cut_off
from graphopt.rewrite.ask import made_by
from graphopt.targets import CPU

__all__ = ["reason"]

_DQ: Final = "DequantizeLinear"
_Q: Final = "QuantizeLinear"
_OFF: Final = 0.01
"""By how much the steps of a bias may miss those of the products, relatively."""


def reason(given: ir.Node, seen: ir.Node | None, provider: str) -> str:
    """The first rule that a product in float breaks, in words.

    Args:
        given: the product as the model has it.
        seen: the same behind the basic optimizations, if it is still there.
        provider: what runs it.
    """
    wants = CPU.integers
    if provider != CPU.provider or wants is None:
        return f"{provider} runs QuantizeLinear and DequantizeLinear around products of floats"
    if seen is None:
        return "onnxruntime has computed it ahead, or taken it into something larger"
    if seen.domain or seen.op_type not in wants.products:
        return f"onnxruntime has no product of integers for {seen.op_type}"
    data, weight, bias = (made_by(input_at(seen, i), _DQ) for i in range(3))
    if data is None:
        return "its data do not come from a DequantizeLinear"
    quantize = _behind(seen)
    if isinstance(quantize, str):
        return quantize
    if quantize is None and seen.op_type in wants.results:
        return "its result is not quantized"
    if weight is None:
        return "its weight does not come from a DequantizeLinear"
    wrong = _types(data, weight, quantize, signed=seen.op_type in wants.signed)
    if not wrong and input_at(seen, 2) is not None:
        wrong = _bias(given, seen, (data, weight, bias), stepped=seen.op_type in wants.stepped)
    return wrong or "onnxruntime does not take it, for no reason that is known here"


def _behind(node: ir.Node) -> ir.Node | str | None:
    """The Q that makes integers of a product's result, None if there is none, or why there must not be one so."""
    users = [_beyond(n) for n in readers(node.outputs[0])]
    last = _sole(users[0]) if len(users) == 1 else None
    if last is not None and _is(last, _Q):
        return f"{users[0].op_type} is between it and QuantizeLinear, and cuts off more than the ends of the integers"
    if last is not None:
        return f"{users[0].op_type} follows it, and no QuantizeLinear follows that"
    quantize = next((n for n in users if _is(n, _Q)), None)
    if quantize is not None and (len(users) > 1 or node.outputs[0].is_graph_output()):
        return "its result is not only quantized, but read otherwise as well"
    return quantize


def _sole(node: ir.Node) -> ir.Node | None:
    """What alone reads a Relu or Clip."""
    if not _is(node, "Relu", "Clip") or node.outputs[0].is_graph_output():
        return None
    users = list(readers(node.outputs[0]))
    return users[0] if len(users) == 1 else None


def _beyond(node: ir.Node) -> ir.Node:
    """The Q behind a Relu or Clip that onnxruntime drops, since the Q cuts off as much; else the node itself."""
    quantize = _sole(node)
    dropped = quantize is not None and _is(quantize, _Q) and cut_off(node, quantize) is None
    return quantize if quantize is not None and dropped else node


def _is(node: ir.Node, *operators: str) -> bool:
    return not node.domain and node.op_type in operators


def _types(data: ir.Node, weight: ir.Node, quantize: ir.Node | None, *, signed: bool) -> str:
    """What is wrong with the types of the integers."""
    for what, node in (("data are", data), ("weight is", weight), ("result is", quantize)):
        if node is not None and _type(node) not in EIGHT_BITS:
            return f"its {what} not of 8 bits"
    stays = _stays(data.inputs[0], data)
    if stays and not (signed and _type(weight) is ir.DataType.INT8):
        return f"its data stay int8, {stays}"
    if quantize is None:
        return ""
    kept = _stays(quantize.outputs[0], quantize)
    if bool(stays) is bool(kept):
        return ""
    return f"its data stay int8, {stays}, and its result does not" if stays else f"its result stays int8, {kept}"


def _type(node: ir.Node) -> ir.DataType | None:
    """The integers that a Q makes or a DQ reads. Inner values of the optimized graph are written without types."""
    zero, value = input_at(node, 2), node.inputs[0]
    if zero is not None:
        return zero.dtype
    if node.op_type == _Q:
        return ir.DataType(attr(node, "output_dtype", 0) or ir.DataType.UINT8)
    quantize = made_by(value, _Q)
    return _type(quantize) if quantize is not None else None if value is None else value.dtype


def _stays(value: ir.Value | None, node: ir.Node) -> str:
    """Why int8 is not made uint8; empty if it is, or if it is something else."""
    if _type(node) is not ir.DataType.INT8 or value is None:
        return ""
    if made_by(value, _Q) is None:
        return "made by no QuantizeLinear"
    if value.is_graph_output():
        return "being an output of the model"
    count = len(value.uses())
    return "" if count == 1 else f"read {count} times"


def _bias(given: ir.Node, seen: ir.Node, parts: tuple[ir.Node, ir.Node, ir.Node | None], *, stepped: bool) -> str:
    """What is wrong with the bias of a product, or with what a bias asks for."""
    data, weight, bias = parts
    if bias is None:
        added = "the Add behind it becomes its bias, which" if input_at(given, 2) is None else "its bias"
        return f"{added} does not come from a DequantizeLinear"
    if _type(bias) is not ir.DataType.INT32:
        return "its bias is not of 32-bit integers"
    if any(attr(seen, name, 1.0) != 1 for name in ("alpha", "beta")):
        return "alpha or beta is not 1, and there is a bias"
    if not stepped:
        return ""
    zero = input_at(bias, 2)
    if zero is not None and ((around := array(zero)) is None or around.any()):
        return "its bias is not quantized around 0"
    x, w, own = (array(input_at(n, 1)) for n in (data, weight, bias))
    if x is None or w is None or own is None:
        return "the steps of its bias are not constants"
    step = x.reshape(-1).astype(np.float64) * w.reshape(-1)
    if len({step.size, own.size} - {1}) > 1 or np.any(np.abs(own.reshape(-1) - step) > _OFF * step):
        return "its bias does not count in steps of the products, scale of the data times scale of the weight"
    return ""
