"""Random graphs: valid ones of all kinds, most of them nearly what some rule looks for.

A graph grows by *fragments*: a single operator, or what exporters make of one (a spelled-out Gelu, a BatchNormalization
behind a Conv, a chain of Reshapes). Each is drawn with its variations, of which many are no match: another constant,
another axis, one reader more. Types and shapes come from the official inference, and what it has no shape for is not
taken up, so that a fragment needs no rule for what it results in.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.support import arranging, attending, carrying, computing
from tests.support.growing import Dim, Graph, Port, info
from tests.support.outlining import DOMAIN, outline

__all__ = ["models"]

OPSETS = (7, 9, 11, 12, 13, 14, 17, 18, 20, 23, 21)

_FRAGMENTS = {**computing.FRAGMENTS, **arranging.FRAGMENTS, **attending.FRAGMENTS, **carrying.FRAGMENTS}
_NAMES = (*_FRAGMENTS, "conv", "matmul", "transposes", "scales", "reshapes", "norm")
"""Those that products and layouts are made of come up more often."""


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A valid model of up to some thirty nodes. Its symbols are N and L."""
    return _grown(Graph(draw, OPSETS[-1 - draw(st.integers(0, len(OPSETS) - 1))]))


def _grown(g: Graph) -> onnx.ModelProto:
    for _ in range(1 + g.chance(2)):
        _add_input(g)
    for _ in range(g.draw(st.integers(1, 8))):
        _FRAGMENTS[g.pick(_NAMES)](g)
        if g.chance(6):
            _again(g)
    made = [n for n in g.ports if n not in g.inputs and n not in g.constants]
    if not made:
        made = [g.node("Identity", next(iter(g.inputs)))]
    read = {name for node in g.nodes for name in node.input}
    often = 3 if g.chance(8) else 12
    outputs = {made[-1], *(n for n in made if (g.chance(often) if n in read else not g.chance(5)))}
    held = {node.output[0] for node in g.nodes if node.op_type == "Constant"}
    kept = {n: a for n, a in g.constants.items() if n not in held}
    overridable = {n: g.port(n) for n, a in kept.items() if a.dtype.kind == "f" and g.chance(10)}
    fixed = [n for n in kept if n not in overridable]
    parts = [outline(g, {*outputs, *(o.name for o in g.given)}, fixed, f"Part{k}") for k in range(_functions(g))]
    functions = [f for f in parts if f is not None]
    graph = helper.make_graph(
        g.nodes,
        "random",
        [info(n, p) for n, p in (g.inputs | overridable).items()],
        [*(info(n, g.ports[n]) for n in (*made, *g.promised) if n in {*outputs, *g.promised}), *g.given],
        [ir.to_proto(ir.tensor(a, name=n)) for n, a in kept.items()],
    )
    imports = [helper.make_opsetid("", g.opset), *([helper.make_opsetid(DOMAIN, 1)] if functions else [])]
    version = helper.OP_SET_ID_VERSION_MAP["ai.onnx", g.opset]
    return helper.make_model(graph, ir_version=max(8, version), opset_imports=imports, functions=functions)


def _functions(g: Graph) -> int:
    return g.pick((1, 1, 2)) if g.chance(4) else 0


def _add_input(g: Graph) -> None:
    kind = g.pick(("image", "sequence", "rows", "image", "sequence", "any"))
    sizes = (1, 2, 3, 4)
    shape: tuple[Dim, ...]
    match kind:
        case "image":
            shape = (g.pick(("N", 1)), g.pick((4, 2, 3)), g.pick((5, 6, 8)), g.pick((5, 6, 8)))
        case "sequence":
            shape = (g.pick(("N", 1, 2)), g.pick(("L", 3)), g.pick((4, 8)))
        case "rows":
            shape = ("N", g.pick(sizes))
        case _:
            shape = tuple(g.pick((*sizes, 0)) for _ in range(g.pick((0, 1, 2, 3))))
    name, dtype = g.fresh("x"), TensorProto.FLOAT
    if g.chance(6):
        dtype = g.pick((TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL, *carrying.odd(g)))
    g.inputs[name] = g.ports[name] = Port(dtype, shape)


def _again(g: Graph) -> None:
    """A node that is there already."""
    once = [n for n in g.nodes if n.op_type not in {"If", "Loop", "Constant"} and n.output[0] in g.ports]
    if once:
        copy = onnx.NodeProto.FromString(g.pick(once[-6:]).SerializeToString())
        ports = [g.ports[n] for n in copy.output]
        copy.output[:] = [g.fresh() for _ in copy.output]
        g.nodes.append(copy)
        g.ports.update(zip(copy.output, ports, strict=True))
