"""Whatever is claimed about values holds: the runtime is asked, at several bindings of the symbols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from graphopt.errors import InputError
from graphopt.graph import values
from graphopt.graph.dims import Dim, Factor, Floor, Least
from graphopt.graph.load import load
from graphopt.graph.nodes import graphs
from graphopt.graph.values import Values, follow
from graphopt.rewrite import Shape
from graphopt.run.session import Feed
from tests.support.models import differences, feed, parse, rewritten, run, source

Binding = dict[str, int]


def at(extent: Dim, binding: Mapping[str, int]) -> int:
    """What a polynomial comes to."""
    return sum(coefficient * prod(factor_at(f, binding) for f in factors) for factors, coefficient in extent.terms)


def factor_at(factor: Factor, binding: Mapping[str, int]) -> int:
    match factor:
        case Floor(dividend, divisor):
            return at(dividend, binding) // divisor
        case Least(extent, most):
            return min(at(extent, binding), most)
    return binding[factor]


def symbols(extent: Dim) -> Iterator[str]:
    for factors, _ in extent.terms:
        for factor in factors:
            match factor:
                case Floor(inner, _) | Least(inner, _):
                    yield from symbols(inner)
                case str():
                    yield factor


@dataclass
class Checked:
    """Claims about the values of one model, and what came of them."""

    proto: onnx.ModelProto
    model: ir.Model = field(init=False)
    values: Values = field(init=False)
    computed: list[ir.Value] = field(init=False)

    def __post_init__(self) -> None:
        self.model = ir.from_proto(self.proto)
        self.values = follow(self.model)
        self.computed = [v for n in self.model.graph for v in n.outputs]

    def runnable(self, nodes: int) -> onnx.ModelProto:
        """The model of the first nodes, with all that they compute as outputs."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        del proto.graph.node[nodes:], proto.graph.output[:], proto.graph.value_info[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=o) for n in proto.graph.node for o in n.output)
        return proto

    def wrong(self, given: Feed) -> list[str]:
        """Claims that do not hold for this feed; what comes after a node that fails is not looked at."""
        results: dict[str, Any] = {}
        for nodes in range(len(self.proto.graph.node), 0, -1):
            try:
                results = run(self.runnable(nodes), given)
            except InputError:
                continue
            if all(legal(n, given | results) for n in self.proto.graph.node[:nodes]):
                break
        binding: Binding = {}
        found = []
        for value in (*self.model.graph.inputs, *self.computed):
            result = given.get(str(value.name), results.get(str(value.name)))
            if result is None or isinstance(result, list):
                continue
            array = np.asarray(result)
            found += self.wrong_shape(value, array, binding)
            found += self.wrong_contents(value, array, binding)
        return found

    def wrong_shape(self, value: ir.Value, array: NDArray[Any], binding: Binding) -> list[str]:
        claims = self.values.shape(value)
        if claims is None:
            return []
        if len(claims) != array.ndim:
            return [f"{value.name} has rank {array.ndim}, not {len(claims)}"]
        for claim, extent in zip(claims, array.shape, strict=True):
            if claim is not None and claim.symbol is not None:
                binding.setdefault(claim.symbol, extent)
        return [
            f"{value.name} is {array.shape}, not {[str(c) for c in claims]}"
            for claim, extent in zip(claims, array.shape, strict=True)
            if claim is not None and at(claim, binding) != extent
        ]

    def wrong_contents(self, value: ir.Value, array: NDArray[Any], binding: Binding) -> list[str]:
        claims = self.values.of(value)
        if claims is None:
            return []
        if claims.shape != array.shape:
            return [f"{value.name} is {array.shape}, not {claims.shape}"]
        return [
            f"{value.name} holds {array.tolist()}, not {[str(c) for c in claims.reshape(-1)]}"
            for claim, item in zip(claims.reshape(-1), array.reshape(-1).tolist(), strict=True)
            if claim is not None and (at(claim, binding) if isinstance(claim, Dim) else claim) != item
        ]


def legal(node: onnx.NodeProto, found: Mapping[str, Any]) -> bool:
    """Whether the standard allows what the runtime did: onnxruntime joins an empty tensor to anything."""
    if node.op_type != "Concat":
        return True
    shapes = [np.shape(found[i]) for i in node.input if i in found]
    axis = node.attribute[0].i
    return len({np.delete(s, axis).tobytes() for s in shapes}) < 2


def shown(text: str) -> dict[str, str]:
    """What is claimed of each value: its contents, else its shape."""
    checked = Checked(parse(text))
    found = {}
    for value in checked.computed:
        contents, shape = checked.values.of(value), checked.values.shape(value)
        if contents is not None:
            found[str(value.name)] = " ".join(str(c) for c in contents.reshape(-1))
        elif shape is not None:
            found[str(value.name)] = f"[{', '.join(map(str, shape))}]"
    return found


# -- random computations ---------------------------------------------------------------------------------------------

EXTENTS = (2, 3, 0, 1, 4, 6)
NUMBERS = (0, 1, 2, 3, 4, -1, -2, 12, 2**31 - 1, 2**63 - 1, -(2**63), 2**31, -5)
SMALL = (0, 1, 2, 3, 4, -1, -2)
INPUTS: Mapping[str, tuple[int | str | None, ...]] = {"x": ("N", "M", 4), "z": ("M", "2*N"), "w": (None, 3), "u": ()}
HOME: Sequence[int] = (2, 3)


class Computation:
    """A graph of shape computations, grown node by node; a node on which the runtime fails is taken back."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.count = 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        """What every value is at home."""
        self.inputs = [
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in INPUTS.items()),
            helper.make_tensor_value_info("i", TensorProto.INT64, [1]),
        ]
        self.home = self.feed({"N": 2, "M": 3, "2*N": 4, "": 2})
        self.arrays.update({k: np.asarray(v) for k, v in self.home.items()})

    def feed(self, binding: Mapping[str, int], given: int = 2) -> Feed:
        return {
            **{
                n: np.zeros([binding[d or ""] if not isinstance(d, int) else d for d in s], np.float32)
                for n, s in INPUTS.items()
            },
            "i": np.array([given]),
        }

    def pick(self, items: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(items))

    def proto(self, outputs: Sequence[str] = ()) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "g", self.inputs, [onnx.ValueInfoProto(name=o) for o in outputs], self.constants
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def const(self, array: Any, dtype: type = np.int64) -> str:
        name = self.name()
        made: NDArray[Any] = np.asarray(array, dtype)
        self.constants.append(ir.to_proto(ir.tensor(made, name=name)))
        self.arrays[name] = made
        return name

    def add(self, op: str, inputs: Sequence[str | None], outputs: int = 1, **attributes: Any) -> str | None:
        """A node; None if it cannot be."""
        present = [i for i in inputs if i is not None]
        if len(present) < len(inputs):
            return None
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, present, names, **attributes))
        try:
            found = run(self.proto(names), self.home)
        except InputError:
            self.nodes.pop()
            return None
        if any(a.size > 1000 for a in found.values()):
            self.nodes.pop()
            return None
        self.arrays.update(found)
        return names[0]

    def value(self, kind: str, rank: int | None = None, dtype: Any = None) -> str:
        """A value of floats, integers or truth values that there is already; the newest are the likeliest."""
        fitting = [
            n
            for n, a in self.arrays.items()
            if a.dtype.kind == kind and rank in (None, a.ndim) and dtype in (None, a.dtype)
        ]
        if not fitting:
            return self.const(True, np.bool_) if kind == "b" else self.extents()
        return str(self.pick(fitting[::-1]))

    def extents(self) -> str:
        return self.add("Shape", [self.value("f")]) or self.const([2])

    def vector(self) -> str:
        return self.value("i", 1, np.int64)

    def alike(self, first: str) -> str:
        """An operand of the type of another one."""
        array = self.arrays[first]
        if self.pick((True, False)):
            return self.value(array.dtype.kind, None, array.dtype)
        shape = self.pick(((), (1,), array.shape))
        numbers = [self.pick(NUMBERS[:7]) for _ in range(prod(shape))]
        return self.const(np.reshape(numbers, shape), array.dtype.type)

    def indices(self, numbers: Sequence[int] = SMALL) -> str:
        """One number of those, or what the graph computes."""
        if self.pick((True, True, False)):
            return self.const([self.pick(numbers)])
        found = self.vector()
        return found if self.arrays[found].size == 1 else self.const([self.pick(numbers)])

    def step(self) -> None:
        getattr(self, self.pick(STEPS))()

    def shape(self) -> None:
        of = self.value(self.pick("ffi"))
        bounds = {k: self.pick(SMALL) for k in self.pick(((), ("start",), ("end",), ("start", "end")))}
        self.add("Shape", [of], **bounds)

    def size(self) -> None:
        self.add("Size", [self.value("f")])

    def gather(self) -> None:
        index = self.const(self.pick((0, 1, 2, -1, [0], [1], [-1], [0, 1], [1, 0], [[0]])))
        self.add("Gather", [self.value(self.pick("iib")), index], axis=0)

    def slice(self) -> None:
        of = self.pick((self.vector, lambda: self.value("f")))()
        axes = self.const([self.pick((0, -1, 1))])
        step = self.const([self.pick((1, 1, 1, 2, -1, -2))])
        bounds = [self.indices(NUMBERS), self.indices(NUMBERS)]
        self.add("Slice", [of, *bounds, *self.pick(([axes, step], [axes], []))])

    def concat(self) -> None:
        parts = [self.pick((self.vector, self.indices, self.vector))() for _ in range(self.pick((2, 1, 3)))]
        self.add("Concat", parts, axis=0)

    def concat_data(self) -> None:
        x = self.value("f")
        self.add("Concat", [x, self.value("f", self.arrays[x].ndim)], axis=self.pick((0, 1, -1)))

    def unsqueeze(self) -> None:
        self.add("Unsqueeze", [self.value(self.pick("iifb")), self.const(self.pick(([0], [-1], [0, 1], [1], [])))])

    def squeeze(self) -> None:
        axes = self.pick(([], [self.const([0])], [self.const([-1])], [self.const([0, 1])], [self.const(np.zeros(0))]))
        self.add("Squeeze", [self.value(self.pick("iifb")), *axes])

    def arithmetic(self) -> None:
        op = self.pick(("Add", "Mul", "Sub", "Div", "Mod", "Max", "Min", "Div", "Mul"))
        x = self.value("i")
        others = [self.alike(x) for _ in range(self.pick((1, 1, 2, 0)) if op in {"Max", "Min"} else 1)]
        attributes = {"fmod": 1} if op == "Mod" and self.pick((True, False)) else {}
        if op in {"Div", "Mod"} and not np.all(self.arrays[others[0]]):
            return
        self.add(op, [x, *others], **attributes)

    def compare(self) -> None:
        x = self.value(self.pick("iib"))
        op = "Equal" if self.arrays[x].dtype.kind == "b" else self.pick(("Equal", "Equal", "Less", "Greater"))
        self.add(op, [x, self.alike(x)])

    def logic(self) -> None:
        x = self.value("b")
        self.add(*self.pick((("And", [x, self.value("b")]), ("Or", [x, self.value("b")]), ("Not", [x]))))

    def where(self) -> None:
        x = self.value(self.pick("iib"))
        self.add("Where", [self.value("b"), x, self.alike(x)])

    def guard(self) -> None:
        """What exporters put before every Expand."""
        target = self.vector()
        ones = self.add(
            "ConstantOfShape", [self.add("Shape", [target])], value=ir.to_proto(ir.tensor(np.array([1]), name="one"))
        )
        minus = self.add("Equal", [target, self.add("Mul", [ones, self.const([-1])])])
        self.add("Expand", [self.value("f"), self.add("Where", [minus, ones, target])])

    def cast(self) -> None:
        self.add("Cast", [self.value(self.pick("iib"))], to=self.pick((6, 7, 7, 9, 1)))

    def cast_like(self) -> None:
        self.add("CastLike", [self.value("i"), self.value("i")])

    def negate(self) -> None:
        self.add(self.pick(("Neg", "Identity")), [self.value("i")])

    def constant_of_shape(self) -> None:
        fill = {"value": ir.to_proto(ir.tensor(self.pick(([0], [3], [True])), name="fill"))}
        self.add("ConstantOfShape", [self.vector()], **self.pick(({}, fill)))

    def range(self) -> None:
        ends = [
            self.value("i", 0, np.int64) if self.pick((True, False)) else self.const(self.pick(SMALL)) for _ in "12"
        ]
        self.add("Range", [*ends, self.const(self.pick((1, 1, 2, -1)))])

    def reduce(self) -> None:
        axes = self.pick(([], [self.const([0])], [self.const(np.zeros(0))]))
        flags = self.pick(({}, {"keepdims": 0}, {"noop_with_empty_axes": 1}))
        self.add(self.pick(("ReduceProd", "ReduceSum")), [self.vector(), *axes], **flags)

    def target(self) -> str:
        """Something to reshape to: what there is, put together."""
        parts = [self.pick((self.vector, self.indices))() for _ in range(self.pick((1, 2, 3)))]
        return self.add("Concat", parts, axis=0) or parts[0]

    def reshape(self) -> None:
        allow = {"allowzero": 1} if self.pick((False, False, True)) else {}
        self.add("Reshape", [self.value(self.pick("ffi")), self.pick((self.target, self.vector))()], **allow)

    def resolved(self) -> None:
        """A Reshape that runs: one of its extents is what is left."""
        x = self.value("f")
        parts: list[str] = []
        for _ in range(self.pick((1, 2, 3))):
            part = self.indices((1, 2, 0))
            parts.append(part)
        parts.insert(self.pick(range(len(parts) + 1)), self.const([-1]))
        self.add("Reshape", [x, self.add("Concat", parts, axis=0)])

    def permuted(self) -> None:
        """A Reshape to the extents in another order, some of them multiplied."""
        x = self.value("f")
        shape = self.add("Shape", [x])
        rank = self.arrays[x].ndim
        order = self.data.draw(st.permutations(range(rank)))
        parts = [self.add("Gather", [shape, self.const([i])]) for i in order]
        if rank > 1 and self.pick((True, False)):
            parts[:2] = [self.add("Mul", parts[:2])]
        if self.pick((True, False)) and parts:
            parts[self.pick(range(len(parts)))] = self.const([-1])
        if parts and None not in parts:
            self.add("Reshape", [x, self.add("Concat", parts, axis=0)])

    def expand(self) -> None:
        self.add("Expand", [self.value(self.pick("ffi")), self.pick((self.target, self.vector))()])

    def tile(self) -> None:
        self.add("Tile", [self.value(self.pick("fi")), self.vector()])

    def transpose(self) -> None:
        self.add("Transpose", [self.value(self.pick("if"))])

    def split(self) -> None:
        x = self.vector()
        if self.pick((True, False)):
            self.add("Split", [x], 2, num_outputs=2)
        else:
            first = self.pick((0, 1, 2))
            self.add("Split", [x, self.const([first, self.arrays[x].size - first])], 2)

    def data_again(self) -> None:
        op = self.pick(("Relu", "Add", "NonZero"))
        self.add(op, [self.value("f") for _ in range(2 if op == "Add" else 1)])


STEPS = [
    n
    for n, f in vars(Computation).items()
    if callable(f) and f.__annotations__ == {"return": "None"} and n not in {"step", "__init__"}
]


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_claims_about_random_computations(data: st.DataObject) -> None:
    computation = Computation(data)
    for _ in range(data.draw(st.integers(4, 14))):
        computation.step()
    bindings = [computation.home]
    for _ in range(3):
        n, m, k, j = (data.draw(st.sampled_from(EXTENTS)) for _ in range(4))
        bindings.append(computation.feed({"N": n, "M": m, "2*N": k, "": j}, data.draw(st.sampled_from(SMALL))))
    checked = Checked(computation.proto())
    wrong = [w for given in bindings for w in checked.wrong(given)]
    assert not wrong, "\n".join([*wrong, onnx.printer.to_text(checked.proto)])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_computations_rewritten(data: st.DataObject) -> None:
    """What is made of the claims computes the same, wherever the original runs."""
    computation = Computation(data)
    for _ in range(data.draw(st.integers(3, 10))):
        computation.step()
    for step in data.draw(st.lists(st.sampled_from(("resolved", "permuted", "guard", "slice")), max_size=2)):
        getattr(computation, step)()
    names = [o for n in computation.nodes for o in n.output][-3:]
    if not names:
        return
    proto = computation.proto()
    kinds = {n: helper.np_dtype_to_tensor_dtype(computation.arrays[n].dtype) for n in names}
    proto.graph.output.extend(
        helper.make_tensor_value_info(n, k, [f"{n}_{i}" for i in range(computation.arrays[n].ndim)])
        for n, k in kinds.items()
    )
    made = rewritten(load(proto), [Shape()])
    for _ in range(4):
        n, m, k, j = (data.draw(st.sampled_from(EXTENTS)) for _ in range(4))
        given = computation.feed({"N": n, "M": m, "2*N": k, "": j}, data.draw(st.sampled_from(SMALL)))
        try:
            expected, every = run(proto, given), run(Checked(proto).runnable(len(proto.graph.node)), given)
        except InputError:
            continue
        if all(legal(n, given | every) for n in proto.graph.node):
            assert not differences(expected, run(made.model, given)), onnx.printer.to_text(made.model)


# -- one operator after another --------------------------------------------------------------------------------------

HEAD = "g (float[N,M,4] x, float[N] z) => (float[K] y)"
CONSTANTS = """<int64 i0 = {0}, int64 i1 = {1}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
    int64[1] m1 = {-1},
    int64[2] ends = {2, -1}, int64[3] order = {2, 0, -1}, bool[1] yes = {1}, bool[1] no = {0},
    int64[1] far = {9223372036854775807},
    int64[1] low = {-9223372036854775808}, int64[1] six = {6}, int64[1] m7 = {-7}>"""

OPERATORS: Mapping[str, Mapping[str, str]] = {
    "a = Shape (x) b = Shape <start = -2, end = 9> (x) c = Shape <end = -1> (x)": {
        "a": "N M 4",
        "b": "M 4",
        "c": "N M",
    },
    "a = Size (x) b = Shape (a) c = Size (b)": {"a": "4*M*N", "b": "", "c": "0"},
    "s = Shape (x) a = Gather (s, order) b = Gather (s, i1)": {"a": "4 N 4", "b": "M"},
    "s = Shape (x) a = Slice (s, m1, low, zero, m1) b = Slice (s, zero, m1) c = Slice (s, m7, far)": {
        "a": "4 M N",
        "b": "N M",
        "c": "N M 4",
    },
    "a = Slice (x, zero, far, two) b = Slice (x, one, m1, two) c = Slice (x, m7, one, two)": {
        "a": "[N, M, 4]",
        "b": "[N, M, 2]",
        "c": "[N, M, 1]",
    },
    "n = Shape (z) m = Shape <start = 1, end = 2> (x) a = Concat <axis = 0> (n, one, m)": {"a": "N 1 M"},
    "a = Concat <axis = -1> (x, x) b = Concat <axis = 0> (z, z)": {"a": "[N, M, 8]", "b": "[2*N]"},
    "n = Shape (z) a = Unsqueeze (n, zero) b = Unsqueeze (x, ends)": {"a": "N", "b": "[N, M, 1, 4, 1]"},
    "n = Shape (z) a = Squeeze (n) b = Squeeze (n, zero) c = Unsqueeze (n, zero) d = Squeeze (c, m1)": {
        "a": "N",
        "d": "N",
    },
    "n = Shape (z) a = Add (n, n) b = Sub (a, n) c = Mul (n, a) d = Neg (n) e = Identity (c)": {
        "a": "2*N",
        "b": "N",
        "c": "2*N*N",
        "d": "-1*N",
        "e": "2*N*N",
    },
    "n = Shape (z) d = Add (n, one) a = Div (d, two) b = Mod (d, two)"
    " c = Div (m7, two) e = Mul (n, two) f = Div (e, two)": {
        "a": "(1 + N)//2",
        "c": "-3",
        "f": "N",
    },
    "n = Shape (z) e = Mul (n, six) a = Mod (e, two) b = Mod (six, far)"
    " c = Mod (m7, two) d = Mod <fmod = 1> (m7, two)": {
        "a": "0",
        "b": "6",
    },
    "n = Shape (z) e = Add (n, two) a = Max (n, e) b = Min (n, e, two) c = Max (one, six, two) d = Min (e, one)": {
        "a": "2 + N",
        "c": "6",
        "d": "1",
    },
    "n = Shape (z) e = Add (n, one) a = Equal (e, zero) b = Equal (n, n) c = Equal (n, zero) d = Equal (n, m1)": {
        "a": "False",
        "b": "True",
        "c": "None",
        "d": "False",
    },
    "n = Shape (z) e = Add (n, one) a = Less (n, e) b = Less (e, n) c = Greater (e, n) d = Greater (n, one)": {
        "a": "True",
        "b": "False",
        "c": "True",
        "d": "None",
    },
    "a = And (yes, no) b = Or (yes, no) c = Not (no) d = Equal (yes, no)": {
        "a": "False",
        "b": "True",
        "c": "True",
        "d": "False",
    },
    "n = Shape (z) c = Greater (n, one) a = Where (yes, n, one) b = Where (no, n, one) d = Where (c, n, n)": {
        "a": "N",
        "b": "1",
        "d": "N",
    },
    "n = Shape (z) a = Cast <to = 6> (n) b = CastLike (n, a) c = Cast <to = 6> (far) d = Cast <to = 9> (six)": {
        "a": "N",
        "b": "N",
    },
    "s = Shape (x) a = ConstantOfShape <value = int64[1] {7}> (two) b = ConstantOfShape (s)": {
        "a": "7 7",
        "b": "[N, M, 4]",
    },
    "n = Shape (z) s = Squeeze (n) a = Range (i0, s, i1) t = Squeeze (six)"
    " b = Range (i1, t, i1) c = Range (t, i1, i1)": {
        "a": "[N]",
        "b": "1 2 3 4 5",
    },
    "s = Shape (x) a = ReduceProd (s) b = ReduceSum <keepdims = 0> (s) c = ReduceSum <noop_with_empty_axes = 1> (s)": {
        "a": "4*M*N",
        "b": "4 + M + N",
    },
    "s = Shape (x) a = Split (s) b, c = Split <num_outputs = 2> (order) d, e = Split (s, k)": {"a": "N M 4", "d": "N"},
    "n = Shape (z) r = Concat <axis = 0> (one, n, two) a = Tile (x, r)": {"a": "[N, M*N, 8]"},
    "a = Flatten <axis = -1> (x) b = Flatten <axis = 0> (x)": {"a": "[M*N, 4]", "b": "[1, 4*M*N]"},
    "s = Shape (x) a = Transpose (s) b = Transpose (x)": {"a": "N M 4", "b": "[4, M, N]"},
    "n = Shape (z) t = Concat <axis = 0> (n, m1) a = Reshape (x, t) b = Reshape (n, m1) c = Reshape (x, m1)": {
        "a": "[N, 4*M]",
        "b": "N",
        "c": "[4*M*N]",
    },
    "s = Shape (x) a = Expand (z, s) b = Expand (two, ones) t = Concat <axis = 0> (s, one) c = Expand (x, s)": {
        "b": "2 2 2",
        "c": "[N, M, 4]",
    },
    "t = Transpose <perm = [0, 2, 1]> (x) a = GroupNormalization <num_groups = 2> (t, g, g)": {"a": "[N, 4, M]"},
    "a = MeanVarianceNormalization <axes = [1]> (x)": {"a": "[N, M, 4]"},
    "n = Shape (x) a = Resize (x, , , n) b = Resize <axes = [2]> (x, , , two)": {"a": "[N, M, 4]", "b": "[N, M, 2]"},
    "a = NonZero (x) s = Size (z) f = Cast <to = 1> (s) b = NonZero (f)": {"a": "[3, a.1]"},
}
EXTRA = {"k": "int64[2] k = {1, 2}", "ones": "int64[1] ones = {3}", "g": "float[4] g = {1, 1, 1, 1}"}


@pytest.mark.parametrize(("nodes", "expected"), OPERATORS.items(), ids=[n[:40] for n in OPERATORS])
def test_an_operator(nodes: str, expected: dict[str, str]) -> None:
    extra = "".join(f", {text}" for name, text in EXTRA.items() if f", {name})" in nodes)
    text = f"{HEAD} {CONSTANTS.replace('>', extra + '>')} {{ {nodes} y = Relu (z) }}"
    found = shown(text)
    assert {k: found.get(k) for k in expected} == expected
    checked = Checked(parse(text))
    for n, m in ((2, 3), (4, 4), (1, 1), (3, 1), (0, 2), (2, 0)):
        assert not checked.wrong(feed(checked.proto, {"N": n, "M": m}))


def test_every_operator_that_is_followed_has_a_claim_here() -> None:
    text = " ".join(OPERATORS)
    assert {op for op in values._RULES if f" {op} " not in text} == {"Loop"}


def wrong(text: str, *feeds: Feed) -> list[str]:
    checked = Checked(parse(text))
    return [w for given in feeds for w in checked.wrong(given)]


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


# -- what must not be believed ---------------------------------------------------------------------------------------


def test_what_a_file_declares_of_computed_values_is_not_believed() -> None:
    text = "g (float[N] x) => (float[7] y) <int64[7] s, float[5] a> { a = Relu (x) s = Shape (a) y = Neg (a) }"
    assert shown(text) == {"a": "[N]", "s": "N", "y": "[N]"}


def test_unnamed_extents_are_not_equal() -> None:
    text = "g (float[?,?] x, float[?,?] z) => (int64[2] y) { a = Shape (x) b = Shape (z) y = Identity (b) }"
    assert shown(text) == {"a": "x.0 x.1", "b": "z.0 z.1", "y": "z.0 z.1"}


def test_an_unnamed_extent_is_not_a_named_one() -> None:
    text = "g (float[?] x, float[x.0] z) => (int64[1] y) { a = Shape (x) y = Shape (z) }"
    proto = parse(text.replace("x.0", "W"))
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "x.0"
    checked = Checked(proto)
    assert not checked.wrong({"x": zeros(2), "z": zeros(3)})


def test_equal_symbols_are_equal() -> None:
    text = """g (float[N] x, float[4,N] z) => (bool[1] y) {
      a = Shape (x) b = Shape <start = 1> (z) y = Equal (a, b)
    }"""
    assert shown(text)["y"] == "True"


LIKE_POLYNOMIALS = ((3, 6, 1, 4), (3, 5, 2, 3), (0, 1, 1, 2))


def test_symbols_may_be_named_as_polynomials_are_written() -> None:
    text = """g (float[N] x, float["2*N"] z, float["(N)//2"] w, float[past] p, float["N + past"] q) => (int64[1] y)
    <int64[1] two = {2}> {
      n = Shape (x) m = Mul (n, two) h = Div (n, two) s = Concat <axis = 0> (x, x) t = Concat <axis = 0> (x, p)
      a = Shape (z) b = Shape (w) c = Equal (a, m) d = Equal (b, h) e = Shape (q) f = Shape (t) y = Equal (e, f)
      u = Shape (s) v = Equal (u, a) k = ConstantOfShape (h) l = ConstantOfShape (b)
    }"""
    feeds = [
        {"x": zeros(n), "z": zeros(z), "w": zeros(w), "p": zeros(1), "q": zeros(q)} for n, z, w, q in LIKE_POLYNOMIALS
    ]
    assert not wrong(text, *feeds)
    assert shown(text)["y"] == "None"


def test_a_negative_extent_of_an_input_is_an_open_one() -> None:
    text = "g (float[-1,4] x) => (int64[2] y) { y = Shape (x) }"
    assert shown(text) == {"y": "x.0 4"}
    assert not wrong(text, {"x": zeros(3, 4)})


def test_an_initializer_that_a_feed_replaces_is_not_known() -> None:
    text = "g (float[N] x, int64[1] s) => (int64[1] y) <int64[1] s = {2}> { y = Add (s, s) }"
    assert shown(text) == {"y": "[1]"}


def test_a_target_that_a_feed_replaces_is_not_known() -> None:
    text = """g (float[N,4] x, int64[1] s, int64[1] e, int64[2] t) => (float[P,Q] y)
    <int64[1] s = {0}, int64[1] e = {1}, int64[1] a = {1}, int64[2] t = {-1, 2}>
    { y = Slice (x, s, e, a) z = Reshape (x, t) }"""
    given = {"x": zeros(2, 4), "e": np.array([3]), "t": np.array([1, -1])}
    assert not wrong(text, given)


def test_parts_of_a_split_that_a_feed_decides_are_not_known() -> None:
    text = """g (float[N,4] x, int64[2] sizes) => (float[P] y)
    { s = Shape (x) a, b = Split (s, sizes) y = ConstantOfShape (a) }"""
    assert not wrong(text, {"x": zeros(2, 4), "sizes": np.array([0, 2])}, {"x": zeros(2, 4), "sizes": np.array([1, 1])})


LOOP = """g (int64 n, bool go, float[N,3] x) => (float[P,Q] grown, float[R,S,T] kept) {
  grown, kept = Loop (n, go, x) <body = b (int64 i, bool c, float[N,3] v) => (bool d, float[N,3] u, float[N,3] k) {
    d = Identity (c) u = Concat <axis = 0> (v, x) k = Neg (x) s = Shape (v)
  }>
}"""


def test_a_state_of_a_loop_may_grow() -> None:
    model = ir.from_proto(parse(LOOP))
    known = follow(model)
    (body,) = [g for g in graphs(model) if g is not model.graph]
    inside = {v.name: v for n in body for v in n.outputs}
    assert known.of(inside["s"]) is None
    assert body.inputs[2].shape is None
    feeds = [{"n": np.array(n), "go": np.array(True), "x": zeros(2, 3)} for n in (0, 1, 3)]
    assert not wrong(LOOP, *feeds)


def test_the_states_of_a_scan() -> None:
    text = """g (float[M] s, float[N,M] x) => (float[P] y, float[Q,R] z) {
      y, z = Scan <num_scan_inputs = 1, body = b (float[7] v, float[8] k) => (float[7] u, float[9] q) {
        u = Add (v, k) q = Concat <axis = 0> (v, k) e = Shape (k)
      }> (s, x)
    }"""
    assert not wrong(text, {"s": zeros(3), "x": zeros(2, 3)}, {"s": zeros(1), "x": zeros(4, 1)})


BRANCHES = """g (bool c, float[N] x, float[M] z) => (int64[1,P] p, int64[1,Q] q, float[5] r, float[5] s) {
  p = If (c) <then_branch = t () => (int64[1,K] a) { a = NonZero (x) },
              else_branch = e () => (int64[1,K] a) { a = NonZero (x) }>
  q = If (c) <then_branch = t () => (int64[1,K] a) { a = NonZero (z) },
              else_branch = e () => (int64[1,K] a) { a = NonZero (z) }>
  r = If (c) <then_branch = t () => (float[5] a) { a = Neg (x) }, else_branch = e () => (float[5] a) { a = Neg (z) }>
  s = If (c) <then_branch = t () => (float[5] a) { a = Neg (x) }, else_branch = e () => (float[5] a) { a = Abs (x) }>
}"""


def test_branches_with_values_of_the_same_name() -> None:
    x, z = np.ones(3, np.float32), np.ones(4, np.float32)
    assert not wrong(BRANCHES, *({"c": np.array(c), "x": x, "z": z} for c in (True, False)))
    assert shown(BRANCHES) == {"p": "[1, p.1]", "q": "[1, q.1]", "r": "[r.0]", "s": "[N]"}


def test_a_computed_0_copies() -> None:
    text = """g (float[N,M] x, float[K,3] w) => (float[P,Q] y) <int64[1] m1 = {-1}> {
      m = Shape <start = 1> (x) t = Concat <axis = 0> (m, m1) y = Reshape (x, t)
      k = Shape <end = 1> (w) u = Concat <axis = 0> (k, m1) z = Reshape (x, u)
      v = Reshape <allowzero = 1> (x, u)
    }"""
    assert shown(text)["v"] == "[K, v.1]"
    assert not wrong(text, *({"x": zeros(n, m), "w": zeros(k, 3)} for n, m, k in ((3, 0, 2), (2, 4, 0), (2, 4, 8))))


def test_backwards_to_the_largest_integer() -> None:
    text = """g (float[N,4] x) => (float[P,Q] y)
    <int64[1] far = {9223372036854775807}, int64[1] most = {2147483647}, int64[1] one = {1}, int64[1] back = {-1}> {
      y = Slice (x, far, far, one, back) a = Slice (x, most, most, one, back)
      s = Shape (x) b = Slice (s, far, most, back, back) c = Slice (s, back, far, back, back) d = Shape (y)
    }"""
    assert not wrong(text, {"x": zeros(2, 4)})


def test_int32_wraps_around() -> None:
    text = """g (float[N] x) => (int32[1] y) <int32[1] big = {2147483647}, int32[1] one = {1},
    int64[1] far = {-9223372036854775808}>
    { y = Add (big, one) a = Neg (far) b = Sub (far, far) }"""
    assert not wrong(text, {"x": zeros(1)})
    assert shown(text)["y"] == "[1]"


@pytest.mark.parametrize(
    "node",
    [
        "y = Gather <axis = 5> (s, one)",
        "y = Slice (s, one, two, five)",
        "y = Slice (s, two2, one)",
        "y = Slice (s, zero, one, zero, zero)",
        "y = Reshape (s, minus)",
        "y = Expand (one, minus)",
        "y = ConstantOfShape <value = int64[1] {1}> (minus)",
        "y = Unsqueeze (s, five)",
        "y = Transpose <perm = [0, 0]> (s)",
        "y = Range (s, s, one)",
        "y = Add (s, three3)",
        "y = Split (s, minus)",
        "y = Where (s, one, three3)",
        "y = Concat <axis = 3> (s, s)",
    ],
)
def test_what_is_not_valid_is_no_obstacle(node: str) -> None:
    model = ir.from_proto(
        parse(f"""g (float[N,M] x) => (int64[A] y)
    <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[2] two2 = {{1, 1}}, int64[1] five = {{5}},
     int64[2] minus = {{-2, -3}}, int64[3] three3 = {{1, 2, 3}}> {{ s = Shape (x) {node} }}""")
    )
    follow(model)


# -- shapes under a binding ------------------------------------------------------------------------------------------


def test_all_shapes_under_a_binding() -> None:
    model = source("""g (bool c, float[N,M] x) => (float[P,Q] y, float[R] z) <int64[1] m1 = {-1}> {
      a = Transpose <perm = [1, 0]> (x)
      y = If (c) <
        then_branch = t () => (float[P,Q] p) { b = Neg (a) p = Relu (b) },
        else_branch = e () => (float[P,Q] q) { q = Abs (a) }
      >
      s = Shape (x)
      f = ReduceProd (s)
      z = Reshape (x, f)
    }""").model
    shape = values.bound(model, {"x": (5, 7), "c": ()})
    named = {v.name: v for g in graphs(model) for n in g for v in n.outputs}
    assert [shape(named[n]) for n in "abyz"] == [(7, 5), (7, 5), (7, 5), (35,)]
    assert shape(model.graph.inputs[1]) == (5, 7)
    assert shape(model.graph.inputs[0]) == ()
    assert shape(None) is None
    assert str(model.graph.inputs[1].shape) == "[N,M]"


def test_the_first_rows_of_a_table_are_as_many_as_the_tokens() -> None:
    """Wherever the sum is possible; past the end of the table only one token is."""
    text = """g (float[N,M,4] x) => (float[N,M,4] y)
    <float[1,3,4] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, int64[1] zero = {0}, int64[1] one = {1}>
    { m = Shape <start = 1, end = 2> (x) p = Slice (table, zero, m, one) y = Add (x, p) z = Add (p, y) }"""
    assert shown(text) == {"m": "M", "p": "[1, min(M, 3), 4]", "y": "[N, M, 4]", "z": "[N, M, 4]"}
    assert not wrong(text, *({"x": zeros(2, m, 4)} for m in (0, 1, 2, 3, 4)))


def test_axes_that_an_unsqueeze_cannot_have_are_no_reason_to_stop() -> None:
    for axes in ("0, 0", "7, 9", "-9, 0"):
        text = f"g (float[N,4] x) => (float y) <int64[2] a = {{{axes}}}> {{ y = Unsqueeze(x, a) }}"
        follow(ir.from_proto(parse(text)))
