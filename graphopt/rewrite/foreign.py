"""Foreign: what somebody else's optimizer makes of the model, as a proposal.

    model        → what onnxsim makes of it

onnxsim runs in the limited child process, on the serialized model with its weights, and never learns where it came
from. Its result is taken only as a whole: if it is a valid model with the same interface and operator sets and fewer
nodes, and the file does not grow by more than it may. Otherwise the reason is kept. Like any edit it is verified, and
left out if it changes the result.

It runs only where it is named, since it knows more rewrites than ours, and some that do not hold for every feed.
Models with weights above 2 GB, and what is random or in training mode, it is not shown.

ROUNDING: it folds and fuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx.checker
import onnx_ir as ir
from google.protobuf.message import DecodeError

from graphopt import ops
from graphopt.graph import functions, values
from graphopt.graph.edit import Editor
from graphopt.graph.nodes import graphs, in_memory
from graphopt.graph.record import WHOLE, Exactness, Refused
from graphopt.graph.save import EXTERNAL_ABOVE, weight_bytes
from graphopt.protocol import Context, NotEvaluated, Pass
from graphopt.rewrite.ask import draws

__all__ = ["Onnxsim"]


@dataclass(frozen=True)
class Onnxsim(Pass):
    """See the module's docstring."""

    name: ClassVar[str] = "onnxsim"
    summary: ClassVar[str] = "take what onnxsim makes of the model, if it has fewer nodes"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    rules: ClassVar[Mapping[str, str]] = {"onnxsim": "The model becomes what onnxsim makes of it."}

    def run(self, edit: Editor, ctx: Context) -> None:
        """One edit for the whole model."""
        reductions = (linear.reduction for g in graphs(edit.model) for n in g for linear in ops.linears(n))
        longest, left = max(reductions, default=1), ctx.ledger.left
        with ctx.noting(self.name, WHOLE):
            try:
                edit.replace_model(self.name, self.exactness, lambda m: _proposal(m, ctx), reduction=longest)
            except Refused:
                ctx.ledger.spend(ctx.ledger.left - left)  # of what was not taken after all
                raise


def _proposal(model: ir.Model, ctx: Context) -> ir.Model:
    """What onnxsim makes of `model`.

    Raises:
        Refused: nothing that could be taken.
    """
    if weight_bytes(model) >= EXTERNAL_ABOVE:
        raise Refused("the weights are above 2 GB")
    before = functions.count(model)
    if any(draws(node) for graph in _everything(model) for node in graph):
        raise Refused("what is inside may be random or in training mode")
    content = _content(model)
    try:
        result = ctx.propose(content)
        proto = onnx.ModelProto.FromString(result)
        onnx.checker.check_model(proto)
        made = ir.from_proto(proto)
    except NotEvaluated as problem:
        raise Refused(f"onnxsim gave nothing: {problem}") from None
    except (DecodeError, ValueError, TypeError, KeyError, ir.serde.SerdeError, onnx.checker.ValidationError):
        raise Refused("what onnxsim gave is no valid model") from None
    if made.opset_imports != model.opset_imports:
        raise Refused(f"the operator sets would change from {model.opset_imports} to {made.opset_imports}")
    if (after := functions.count(made)) >= before:
        raise Refused(f"onnxsim leaves {after} nodes of {before}")
    if not ctx.ledger.spend(_size(result) - _size(content)):
        raise Refused("the file would grow")
    for graph in graphs(made):
        for value in (v for node in graph for v in node.outputs if not v.is_graph_output()):
            value.shape = None  # it is inferred anew, and not believed
    values.follow(made)
    return made


def _size(content: bytes) -> int:
    """Bytes of a model without what the emitted file does not have: notes of its maker, and inferred types."""
    proto = onnx.ModelProto.FromString(content)
    for notes in (proto.metadata_props, proto.graph.value_info):
        del notes[:]
    return int(proto.ByteSize())


def _everything(model: ir.Model) -> Iterator[ir.Graph]:
    """All graphs, those of functions as well."""
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        yield graph
        yield from graph.subgraphs()


def _content(model: ir.Model) -> bytes:
    """The bytes of a model, which is a copy, with its weights inside."""
    for graph in _everything(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = in_memory(value.const_value)
        for node in graph:
            for name, a in list(node.attributes.items()):
                if a.type is ir.AttributeType.TENSOR and not a.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, in_memory(a.as_tensor()))
                elif a.type is ir.AttributeType.TENSORS and not a.is_ref():
                    node.attributes[name] = ir.AttrTensors(name, [in_memory(t) for t in a.as_tensors()])
    return bytes(ir.to_proto(model).SerializeToString())
