"""What a model file holds that the graph in memory has no place for.

onnx-ir drops sparse initializers and training information, and writes a value_info for everything it knows a type of.
Here the first two are set aside at load and put back at the end, and so is what the file said of inner values: it is
not trusted, since it may be wrong or stale, and what is inferred instead is not written.
What cannot be set aside safely makes the model untouchable: it is emitted as it came, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
import onnx_ir as ir

from graphopt.graph.nodes import PROTECTED, TRAINED, graphs

__all__ = ["MAPS", "Carried", "from_proto", "graph_protos", "sparse_tensors", "to_proto"]


MAPS = "graphopt.maps"
"""In the meta of a main graph: the names of values that are maps, for which the graph in memory has no type."""


@dataclass(frozen=True)
class Carried:
    """What to put back into the file, and the reason not to touch the graph, if there is one."""

    sparse: tuple[onnx.SparseTensorProto, ...] = ()
    training: tuple[onnx.TrainingInfoProto, ...] = ()
    described: Mapping[str, Sequence[onnx.ValueInfoProto]] = field(default_factory=dict)
    """What the file said of inner values and of ports of bodies, by name; a name may stand for several values."""
    interface: Mapping[str, onnx.ValueInfoProto] = field(default_factory=dict)
    """Inputs and outputs of the model as declared, by name."""
    stand_ins: frozenset[str] = frozenset()
    """Inputs that stand for sparse initializers in the meantime."""
    constants: tuple[onnx.NodeProto, ...] = ()
    """Nodes that hold a sparse tensor; in the meantime it is a sparse initializer."""
    untouchable: str | None = None

    def without(self, names: Collection[str]) -> Carried:
        """Without what the file said of some inner values, which are no longer what they were."""
        return replace(self, described={n: infos for n, infos in self.described.items() if n not in names})

    def declared(self, value: ir.Value) -> ir.Value:
        """An input or output as the file declares it, without what was learned since."""
        info = self.interface.get(str(value.name))
        return value if info is None else ir.serde.deserialize_value_info_proto(info, None)


def from_proto(proto: onnx.ModelProto) -> tuple[ir.Model, Carried]:
    """The graph of `proto`, and what has no place in it. `proto` is emptied of the latter."""
    given = tuple(proto.graph.sparse_initializer)
    constants = _lift_sparse(proto.graph)
    nested = [g for g in graph_protos(proto.graph) if g is not proto.graph]
    untouchable = None
    if any(g.sparse_initializer for g in nested):
        untouchable = "a body of If, Loop or Scan holds sparse initializers"
    described: dict[str, list[onnx.ValueInfoProto]] = {}
    bodies = (i for g in nested for i in (*g.input, *g.output))
    for info in (*(i for g in (proto.graph, *nested) for i in g.value_info), *bodies):
        described.setdefault(info.name, []).append(info)
    sparse = {t.values.name: t for g in (proto.graph, *nested) for t in g.sparse_initializer}
    stand_ins = sparse.keys() - {i.name for i in proto.graph.input}
    carried = Carried(
        sparse=given,
        training=tuple(proto.training_info),
        described=described,
        interface={i.name: _copy(i) for i in (*proto.graph.output, *proto.graph.input)},
        stand_ins=frozenset(stand_ins),
        constants=constants,
        untouchable=untouchable,
    )
    # A sparse weight becomes an input in the meantime: a value that rules see and know nothing about.
    for name, tensor in sparse.items():
        if name in stand_ins:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.values.data_type, list(tensor.dims))
            )
    for graph in (proto.graph, *nested):
        del graph.sparse_initializer[:]
    maps = [i for g in (proto.graph, *nested) for i in (*g.input, *g.output, *g.value_info) if _holds_map(i.type)]
    for info in maps:
        info.ClearField("type")
    model = ir.from_proto(proto)
    model.graph.meta[MAPS] = frozenset(i.name for i in maps)
    for value in (v for graph in graphs(model) for node in graph for v in node.outputs if not v.is_graph_output()):
        value.shape = None
    if carried.training:
        model.graph.meta[TRAINED] = True
    _protect(model, _names_in(carried.training) | {n for g in (proto.graph, *nested) for n in _annotated(g)})
    return model, carried


def _holds_map(declared: onnx.TypeProto) -> bool:
    """Whether it is a map, or a sequence or optional of maps."""
    while declared.HasField("sequence_type") or declared.HasField("optional_type"):
        outer = declared.sequence_type if declared.HasField("sequence_type") else declared.optional_type
        declared = outer.elem_type
    return bool(declared.HasField("map_type"))


def _lift_sparse(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, ...]:
    """Make sparse initializers of nodes that hold a sparse tensor, which are answered."""
    outputs = {o.name for o in graph.output}
    found = []
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Constant" or node.domain or len(node.output) != 1 or node.output[0] in outputs:
            continue
        if len(node.attribute) == 1 and node.attribute[0].HasField("sparse_tensor"):
            found.append(onnx.NodeProto.FromString(node.SerializeToString()))
            tensor = graph.sparse_initializer.add()
            tensor.CopyFrom(node.attribute[0].sparse_tensor)
            tensor.values.name = node.output[0]
            del graph.node[index]
    return tuple(found)


def to_proto(model: ir.Model, carried: Carried) -> onnx.ModelProto:
    """The file's contents for `model`, with what was carried put back."""
    proto = ir.to_proto(model)
    kept = [i for i in proto.graph.input if i.name not in carried.stand_ins]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    for declared in (*proto.graph.input, *proto.graph.output):
        if declared.name in carried.interface:
            declared.CopyFrom(_with_type_of(declared, carried.interface[declared.name]))
    proto.graph.sparse_initializer.extend(carried.sparse)
    for node in carried.constants:
        proto.graph.node.insert(0, node)
    proto.training_info.extend(carried.training)
    for graph in graph_protos(proto.graph):
        described = [_as_given(i, carried) for i in graph.value_info if i.name in carried.described]
        described += _foreign_types(graph, carried)
        del graph.value_info[:]
        graph.value_info.extend(described)
        for port in (*graph.input, *graph.output) if graph is not proto.graph else ():
            if port.name in carried.described:
                port.CopyFrom(_as_given(port, carried))
    return proto


def _copy(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    made = onnx.ValueInfoProto()
    made.CopyFrom(info)
    return made


def _with_type_of(info: onnx.ValueInfoProto, given: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """What the file said of an input or output; if its elements are of another type by now, of that."""
    element, declared = info.type.tensor_type.elem_type, given.type.tensor_type.elem_type
    if not declared or element == declared:
        return given
    made = _copy(given)
    made.type.tensor_type.elem_type = element
    return made


def _as_given(info: onnx.ValueInfoProto, carried: Carried) -> onnx.ValueInfoProto:
    """What the file said of the value, where that is clear and its type is still the same."""
    given = carried.described[info.name]
    element = given[0].type.tensor_type.elem_type
    return given[0] if len(given) == 1 and element in {0, info.type.tensor_type.elem_type} else info


def _foreign_types(graph: onnx.GraphProto, carried: Carried) -> list[onnx.ValueInfoProto]:
    """The types of what a runtime's own operators compute: nothing else tells them to a reader."""
    foreign = {name for n in graph.node if n.domain and not onnx.defs.has(n.op_type, n.domain) for name in n.output}
    return [
        onnx.helper.make_tensor_value_info(i.name, i.type.tensor_type.elem_type, None)
        for i in graph.value_info
        if i.name in foreign - carried.described.keys() and i.type.HasField("tensor_type")
    ]


def graph_protos(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all bodies below it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            for a in node.attribute:
                if a.HasField("g"):
                    pending.append(a.g)
                pending.extend(a.graphs)


def sparse_tensors(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    """The sparse initializers of the graph, and what its nodes hold."""
    yield from graph.sparse_initializer
    yield from (a.sparse_tensor for n in graph.node for a in n.attribute if a.HasField("sparse_tensor"))


def _annotated(graph: onnx.GraphProto) -> Iterator[str]:
    for annotation in graph.quantization_annotation:
        yield annotation.tensor_name
        yield from (entry.value for entry in annotation.quant_parameter_tensor_names)


def _names_in(training: tuple[onnx.TrainingInfoProto, ...]) -> set[str]:
    """Every name of the inference graph that training may refer to."""
    names: set[str] = set()
    for info in training:
        for binding in (*info.initialization_binding, *info.update_binding):
            names.update((binding.key, binding.value))
        for graph in (*graph_protos(info.initialization), *graph_protos(info.algorithm)):
            names.update(name for node in graph.node for name in node.input)
    return names


def _protect(model: ir.Model, names: set[str]) -> None:
    if not names:
        return
    for graph in graphs(model):
        for value in (*graph.inputs, *graph.initializers.values(), *(o for n in graph for o in n.outputs)):
            if value.name in names:
                value.meta[PROTECTED] = True
