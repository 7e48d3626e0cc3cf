"""Which release of onnxruntime loads which models.

What a release takes was found by loading models into it (1.15 and later); of older ones it is what onnxruntime's table
of compatibility says. A release refuses models of a newer opset or IR version than it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from graphopt.gate.untold import Untold

__all__ = ["oldest"]

_RELEASES: Final = (
    # onnxruntime, IR version, opset of ai.onnx and of ai.onnx.ml
    ("1.0", 6, 11, 2),
    ("1.3", 7, 12, 2),
    ("1.6", 7, 13, 2),
    ("1.8", 7, 14, 2),
    ("1.9", 8, 15, 2),
    ("1.11", 8, 16, 2),
    ("1.12", 8, 17, 2),
    ("1.14", 8, 18, 2),
    ("1.15", 9, 19, 3),
    ("1.17", 9, 20, 4),
    ("1.18", 10, 21, 5),
    ("1.21", 10, 22, 5),
    ("1.23", 11, 23, 5),
    ("1.24", 13, 25, 5),
    ("1.25", 13, 26, 5),
)
"""The first release of each row. Opset 24 came with 25."""

_KNOWN: Final = (
    ("1.15", "Attention BiasGelu BiasSplitGelu DynamicQuantizeMatMul EmbedLayerNormalization FastGelu"),
    ("1.15", "FusedConv FusedGemm FusedMatMul Gelu GemmFastGelu MatMulIntegerToFloat"),
    ("1.15", "MultiHeadAttention NhwcMaxPool QAttention QGemm QLinearAdd QLinearAveragePool"),
    ("1.15", "QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax"),
    ("1.15", "QLinearWhere QuickGelu SkipLayerNormalization SkipSimplifiedLayerNormalization"),
    ("1.17", "GroupQueryAttention MatMulNBits MoE RotaryEmbedding"),
    ("1.18", "QMoE"),
    ("1.20", "GatherBlockQuantized"),
)
_ADDED: Final[Mapping[str, str]] = MappingProxyType(
    {name: release for release, names in _KNOWN for name in names.split()}
)
"""onnxruntime's own operators: the first release that knows each, of 1.15 and later; most are older."""

_OWN: Final = "com.microsoft."


def oldest(ir_version: int, opsets: Mapping[str, int], operators: Iterable[str]) -> str:
    """The first release of onnxruntime that takes a model, by its versions and the names of its operators.

    Attributes are not looked at: an operator may take more of them in a newer release.

    Args:
        ir_version: of the file.
        opsets: versions by domain, of those that operators are from.
        operators: as `inspect` names them.

    Raises:
        Untold: nothing is known of a domain, a version or an operator.
    """
    for domain in opsets:
        if domain not in {"ai.onnx", "ai.onnx.ml", _OWN[:-1]}:
            raise Untold(f"nothing is known of the domain {domain!r}")
    needs = (ir_version, opsets.get("ai.onnx", 0), opsets.get("ai.onnx.ml", 0))
    fitting = [name for name, *most in _RELEASES if all(n <= m for n, m in zip(needs, most, strict=True))]
    if not fitting:
        raise Untold(f"no release is known that takes opset {needs[1]} at IR version {ir_version}")
    found = [fitting[0]]
    for operator in operators:
        if operator.startswith(_OWN):
            name = operator.removeprefix(_OWN)
            if name not in _ADDED:
                raise Untold(f"it is not known since when there is {operator}")
            found.append(_ADDED[name])
    return max(found, key=lambda version: tuple(map(int, version.split("."))))
