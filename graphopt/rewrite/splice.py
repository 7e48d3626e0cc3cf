"""Bodies taken out of the node that runs them: what branches, loops and calls of functions have in common.

    node(inputs) { body }     → the nodes of the body, reading `inputs`

A copy is made; the body stays as it is until the edit is accepted. The body's own constants come along, what it reads
from outside it reads as before, and attributes that refer to those of a call get their values. Shapes are forgotten:
the same name stood for another extent each time the body ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir

from graphopt.graph.draft import Draft
from graphopt.graph.edit import is_read
from graphopt.graph.nodes import bodies
from graphopt.match.engine import No
from graphopt.rewrite.ask import draws

__all__ = ["Constants", "Results", "own", "splice", "within"]

Results = list[ir.Value | None]
"""What a body gives, as values outside of it; None for what is absent."""

Constants = dict[str, ir.Value]
"""The constants of a body that were taken over already, by name: copies share them."""


def within(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """The nodes, each followed by all in its bodies."""
    for node in nodes:
        yield node
        yield from (inner for body in bodies(node) for inner in body)


def splice(
    draft: Draft,
    body: ir.Graph,
    inputs: Sequence[ir.Value | None] = (),
    *,
    attributes: Mapping[str, ir.Attr] | None = None,
    constants: Constants | None = None,
) -> Results | No:
    """Put a copy of the nodes of `body` into the draft.

    Args:
        draft: where to.
        body: of If, Loop or a local function.
        inputs: what its inputs are this time; what is missing at the end is absent.
        attributes: of the call, with the defaults of the function.
        constants: where several copies are made, those of the earlier ones.

    Returns:
        What its outputs are: values of the draft or some of `inputs`.
    """
    if len(set(body.outputs)) != len(body.outputs):
        return No("two of its results are the same value")  # onnxruntime does not compute what it says
    copy = body.clone(allow_outer_scope_values=True)
    given = dict(zip(copy.inputs, [*inputs, *[None] * (len(copy.inputs) - len(inputs))], strict=True))
    constants = {} if constants is None else constants
    for value in list(copy.initializers.values()):
        name, tensor = str(value.name), value.const_value
        if tensor is None or value in given:
            return No("a constant of the body could be given by what runs it")
        if name not in constants:
            constants[name] = draft.tensor(tensor, name)
        given[value] = constants[name]
    outputs = [given.get(v, v) for v in copy.outputs]
    nodes = list(copy)
    copy.outputs.clear()
    copy.remove(nodes)
    draft.nodes.extend(nodes)
    for use, new in [(use, new) for old, new in given.items() for use in old.uses()]:
        use.node.replace_input_with(use.idx, new)
    for node in within(nodes):
        _settle(node, attributes or {})
    if any(draws(node) for node in within(nodes)):
        return No("what is inside may be random or in training mode")
    return outputs


def own(
    draft: Draft, outputs: Sequence[ir.Value], results: Sequence[ir.Value | None]
) -> Mapping[ir.Value, ir.Value] | No:
    """What takes the place of those `outputs` that are read: for each one the output of another node of the draft.

    What is handed through or returned twice is copied; nodes of the draft that nothing needs go.
    """
    made = {v for node in draft.nodes for v in node.outputs}
    replaced: dict[ir.Value, ir.Value] = {}
    for old, new in zip(outputs, results, strict=False):
        if not is_read(old):
            continue
        if new is None:
            return No("a result is absent")
        if new in made:
            made.remove(new)
            replaced[old] = new
        elif isinstance(new.type or old.type, ir.TensorType):
            replaced[old] = draft.node("Identity", [new])
        else:
            return No("a result that is handed through is no tensor")
    draft.prune(replaced.values())
    return replaced or No("nothing reads what it gives")


def _settle(node: ir.Node, attributes: Mapping[str, ir.Attr]) -> None:
    """Absent inputs at the end go, shapes are forgotten, and attributes that refer to those of the call get theirs."""
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
    for value in node.outputs:
        value.shape = None
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            source = attributes.get(str(attribute.ref_attr_name))
            del node.attributes[name]
            if source is not None:
                node.attributes.add(ir.Attr(name, source.type, source.value, doc_string=attribute.doc_string))
