"""Random graphs keep their meaning, whatever the lossless passes make of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx_ir as ir
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from graphopt.errors import InputError
from graphopt.graph import invariants
from graphopt.graph.edit import Exactness
from graphopt.graph.load import load
from graphopt.graph.nodes import graphs
from graphopt.protocol import Evaluator
from graphopt.rewrite import LOSSLESS
from graphopt.run.session import Feed
from tests.support.models import differences, feed, overrides, rewritten, run, show

Dim = int | str
Shape = tuple[Dim, ...]
SIZES = (1, 2, 3, 5)
MOST_ELEMENTS = 1000
ROUNDED = 1e-4
STEPS = [
    "unary",
    "dropout",
    "casts",
    "with_constant",
    "with_constant",
    "binary",
    "matmul",
    "gemm",
    "conv",
    "conv",
    "batchnorm",
    "batchnorm",
    "reshape",
    "computed_target",
    "computed_target",
    "transpose",
    "slice",
    "concat",
    "expand",
    "squeeze",
    "branch",
    "again",
]
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Identity", "Softmax")


class Builder:
    """A graph that grows node by node; every value of it is a float tensor whose shape is known."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.values: dict[str, Shape] = {}
        self.inputs: dict[str, Shape] = {}
        self.count = 0

    # -- small words -------------------------------------------------------------------------------------------------

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def maybe(self) -> bool:
        return self.draw(st.booleans())

    def value(self, fits: Callable[[Shape], object] = lambda _: True) -> str | None:
        """One of the values whose shape fits, rather a late one."""
        found = [name for name, shape in self.values.items() if fits(shape)]
        return self.pick(found[-4:]) if found else None

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def add(self, op: str, inputs: Sequence[str], shape: Shape, *, outputs: int = 1, **attributes: Any) -> str:
        names = [self.fresh() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        self.values[names[0]] = shape
        return names[0]

    def floats(self, *shape: int) -> str:
        """A constant: shared, neutral or random; an initializer, a Constant node or computed from others."""
        shared = [n for n, c in self.constants.items() if c.shape == shape and c.dtype == np.float32]
        if shared and self.maybe():
            return str(self.pick(shared))
        kind = self.pick(("random", "random", "ones", "zeros", "negative zeros"))
        filled = {"ones": 1.0, "zeros": 0.0, "negative zeros": -0.0}
        draw = np.random.default_rng(self.draw(st.integers(0, 99)))
        array = np.full(shape, filled[kind]) if kind in filled else draw.uniform(0.5, 2, shape)
        return self.constant(array.astype(np.float32))

    def constant(self, array: NDArray[Any]) -> str:
        name = self.fresh("c")
        if self.draw(st.integers(0, 4)) == 0:
            self.nodes.append(helper.make_node("Constant", [], [name], value=ir.to_proto(ir.tensor(array))))
            return name
        self.constants[name] = array
        if array.dtype == np.float32 and self.draw(st.integers(0, 5)) == 0:
            made = self.fresh("c")
            self.nodes.append(helper.make_node(self.pick(("Identity", "Neg")), [name], [made]))
            return made
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    # -- kinds of nodes ----------------------------------------------------------------------------------------------

    def unary(self) -> None:
        x = self.value(len)
        if x:
            self.add(self.pick(UNARY), [x], self.values[x])

    def dropout(self) -> None:
        x = self.value()
        if x:
            self.add("Dropout", [x], self.values[x], outputs=self.pick((1, 2)))

    def casts(self) -> None:
        x = self.value()
        if x and self.maybe():
            wide, between = self.fresh("d"), self.fresh("d")
            self.nodes.append(helper.make_node("Cast", [x], [wide], to=onnx.TensorProto.DOUBLE))
            # Two Casts in a row the runtime itself takes out, even where only a body reads the second one.
            self.nodes.append(helper.make_node("Abs", [wide], [between]))
            self.add("Cast", [between], self.values[x], to=onnx.TensorProto.FLOAT)
        elif x:
            self.add("CastLike", [x, str(self.value())], self.values[x])

    def with_constant(self) -> None:
        x = self.value()
        if not x:
            return
        shape = self.values[x]
        axis = self.draw(st.integers(0, max(len(shape) - 1, 0)))
        along = tuple(d if i == axis and isinstance(d, int) else 1 for i, d in enumerate(shape))
        c = self.floats(*self.pick(((), (1,), along, along[1:])))
        op, swap = self.pick(("Add", "Sub", "Mul", "Div")), self.maybe()
        if op == "Div" or (op == "Sub" and self.maybe()):
            swap = False
        if op == "Div":
            c = self.constant(np.array(self.pick((1.0, 2.0)), np.float32))
        result = broadcast(shape, tuple(self.constants[c].shape)) if c in self.constants else None
        if result is None:
            c, result = self.constant(np.array(2.0, np.float32)), shape
        self.add(op, [c, x] if swap else [x, c], result)

    def binary(self) -> None:
        x = self.value()
        z = self.value(lambda s: bool(x) and broadcast(self.values[str(x)], s) is not None)
        if x and z:
            result = broadcast(self.values[x], self.values[z])
            if result is not None and small(result):
                self.add(self.pick(("Add", "Sub", "Mul", "Max")), [x, z], result)

    def matmul(self) -> None:
        x = self.value(lambda s: len(s) > 1 and isinstance(s[-1], int))
        if x:
            *rest, inner = self.values[x]
            width = self.pick(SIZES)
            self.add("MatMul", [x, self.floats(int(inner), width)], (*rest, width))

    def gemm(self) -> None:
        x = self.value(lambda s: len(s) == 2 and isinstance(s[1], int))
        if x:
            rows, inner = self.values[x]
            width, transposed = self.pick(SIZES), self.maybe()
            inputs = [x, self.floats(width, int(inner)) if transposed else self.floats(int(inner), width)]
            attributes = {"alpha": self.pick((1.0, 0.5)), "beta": self.pick((1.0, 2.0))}
            if self.maybe():
                inputs.append(self.floats(*self.pick(((width,), (1, width), (1,), ()))))
            self.add("Gemm", inputs, (rows, width), transB=int(transposed), **attributes)

    def conv(self) -> None:
        x = self.value(lambda s: len(s) == 3 and all(isinstance(d, int) for d in s[1:]))
        if x:
            batch, channels, length = self.values[x]
            groups = self.pick([g for g in (1, 2, 3, 5) if int(channels) % g == 0])
            per_group, kernel = self.pick((1, 2)), self.pick((1, 2))
            out = groups * per_group
            transposed = self.maybe()
            long = int(length) + kernel - 1 if transposed else int(length) - kernel + 1
            if long < 1:
                return
            weight = (int(channels), per_group, kernel) if transposed else (out, int(channels) // groups, kernel)
            bias = [[self.floats(out)], [], [""]][self.draw(st.integers(0, 2))]
            op = "ConvTranspose" if transposed else "Conv"
            self.add(op, [x, self.floats(*weight), *bias], (batch, out, long), group=groups)

    def batchnorm(self) -> None:
        x = self.value(lambda s: len(s) > 1 and isinstance(s[1], int))
        if x:
            channels = int(self.values[x][1])
            draw = np.random.default_rng(self.draw(st.integers(0, 99)))
            self.add(
                "BatchNormalization",
                [
                    x,
                    *(self.floats(channels) for _ in range(3)),
                    self.constant(draw.uniform(0.5, 2, channels).astype(np.float32)),
                ],
                self.values[x],
            )

    def reshape(self) -> None:
        x = self.value(len)
        if not x:
            return
        shape = self.values[x]
        kind = self.pick(("same", "shape of itself", "flat", "minus one"))
        numbers = [d if isinstance(d, int) else 0 for d in shape]
        if kind == "shape of itself":
            own = self.fresh("s")
            self.nodes.append(helper.make_node("Shape", [x], [own]))
            self.add("Reshape", [x, own], shape)
        elif kind == "flat" and all(isinstance(d, int) for d in shape[1:]):
            self.add("Reshape", [x, self.ints(0, -1)], (shape[0], prod(int(d) for d in shape[1:])))
        elif kind == "minus one" and all(isinstance(d, int) for d in shape[1:]):
            self.add("Reshape", [x, self.ints(-1, *(int(d) for d in shape[1:]))], shape)
        else:
            self.add("Reshape", [x, self.ints(*numbers)], shape)

    def extent(self, x: str, axis: int) -> str:
        """One extent of a value as a vector of one number, in one of the ways in which exporters ask for it."""
        way = self.pick(("slice", "gather", "scalar", "arithmetic"))
        shape = self.plain("Shape", [x])
        if way == "slice":
            return self.plain("Slice", [shape, self.ints(axis), self.ints(axis + 1)])
        if way == "scalar":
            return self.plain("Unsqueeze", [self.plain("Gather", [shape, self.constant(np.array(axis))]), self.ints(0)])
        found = self.plain("Gather", [shape, self.ints(axis)])
        if way == "arithmetic":
            found = self.plain("Div", [self.plain("Mul", [found, self.ints(2)]), self.ints(2)])
        return found

    def plain(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node on integers, which are no values to go on with."""
        name = self.fresh("s")
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def computed_target(self) -> None:
        """Reshape and Expand to extents that are computed from the input's, and a Slice up to one of them."""
        x = self.value(lambda s: len(s) > 1 and all(isinstance(d, int) for d in s[1:]))
        if not x:
            return
        first, *rest = self.values[x]
        numbers = [int(d) for d in rest]
        kind = self.pick(("reshape", "flat", "expand", "slice"))
        if kind == "slice":
            self.add("Slice", [x, self.ints(0), self.extent(x, 0), self.ints(0)], (first, *rest))
            return
        wanted = [prod(numbers)] if kind == "flat" else numbers
        target = self.plain("Concat", [self.extent(x, 0), self.ints(*wanted)], axis=0)
        if kind == "expand" and self.maybe():  # the guard against -1
            ones = self.plain("ConstantOfShape", [self.plain("Shape", [target])], value=ir.to_proto(ir.tensor([1])))
            minus = self.plain("Equal", [target, self.plain("Mul", [ones, self.ints(-1)])])
            target = self.plain("Where", [minus, ones, target])
        self.add("Expand" if kind == "expand" else "Reshape", [x, target], (first, *wanted))

    def transpose(self) -> None:
        x = self.value(lambda s: len(s) > 1)
        if x:
            shape = self.values[x]
            perm = self.draw(st.permutations(range(len(shape))))
            self.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)

    def slice(self) -> None:
        x = self.value(lambda s: any(isinstance(d, int) for d in s))
        if x:
            shape = self.values[x]
            axis = self.pick([i for i, d in enumerate(shape) if isinstance(d, int)])
            size = int(shape[axis])
            start, end = self.pick([(0, size), (0, 2**63 - 1), (0, max(size - 1, 1)), (size - 1, size), (-1, size + 3)])
            kept = len(range(*slice(start, end).indices(size)))
            named = [self.ints(start), self.ints(end), self.ints(axis - len(shape) if self.maybe() else axis)]
            self.add("Slice", [x, *named], (*shape[:axis], kept, *shape[axis + 1 :]))

    def concat(self) -> None:
        x = self.value(len)
        if x:
            shape = self.values[x]
            others = [n for n, s in self.values.items() if s == shape][: self.draw(st.integers(0, 2))]
            found = [i for i, d in enumerate(shape) if isinstance(d, int)]
            if found:
                axis = self.pick(found)
                width = int(shape[axis]) * (1 + len(others))
                if small((*shape[:axis], width, *shape[axis + 1 :])):
                    self.add("Concat", [x, *others], (*shape[:axis], width, *shape[axis + 1 :]), axis=axis)

    def expand(self) -> None:
        x = self.value()
        if x:
            shape = self.values[x]
            target = self.pick(([1], [1] * len(shape), [2, *(1 for _ in shape)] if len(shape) < 4 else [1]))
            result = broadcast(shape, tuple(target))
            if result is not None and small(result) and target:
                self.add("Expand", [x, self.ints(*target)], result)

    def squeeze(self) -> None:
        x = self.value(lambda s: len(s) < 4)
        if x and self.maybe():
            axis = self.draw(st.integers(0, len(self.values[x])))
            shape = self.values[x]
            self.add("Unsqueeze", [x, self.ints(axis)], (*shape[:axis], 1, *shape[axis:]))
        elif x and 1 in self.values[x]:
            shape = self.values[x]
            axis = shape.index(1)
            self.add("Squeeze", [x, self.ints(axis)], (*shape[:axis], *shape[axis + 1 :]))

    def branch(self) -> None:
        x = self.value()
        if x:
            bodies = []
            for op in (self.pick(UNARY[:-1]), self.pick(UNARY[:-1])):
                inner, out = self.fresh("i"), self.fresh("o")
                nodes = [helper.make_node("Identity", [x], [inner]), helper.make_node(op, [inner], [out])]
                info = helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, self.values[x])
                bodies.append(helper.make_graph(nodes, "body", [], [info]))
            self.add("If", ["which"], self.values[x], then_branch=bodies[0], else_branch=bodies[1])

    def again(self) -> None:
        """A node that is there already."""
        once = [n for n in self.nodes if n.op_type not in {"If", "Constant"} and n.output[0] in self.values]
        if once:
            node = self.pick(once)
            copy = onnx.NodeProto.FromString(node.SerializeToString())
            copy.output[:] = [self.fresh() for _ in node.output]
            self.nodes.append(copy)
            self.values[copy.output[0]] = self.values[node.output[0]]

    # -- the model ---------------------------------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        for _ in range(self.draw(st.integers(1, 2))):
            sizes = self.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=2))
            name = self.fresh("x")
            self.inputs[name] = self.values[name] = ("N", *sizes)
        for _ in range(self.draw(st.integers(1, 15))):
            getattr(self, self.pick(STEPS))()
        made = [n for n in self.values if n not in self.inputs] or [self.add("Relu", ["x1"], self.values["x1"])]
        outputs = {made[-1], *self.draw(st.lists(st.sampled_from(made), max_size=2))}
        overridable = [c for c in self.constants if self.draw(st.integers(0, 7)) == 0]
        inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in self.inputs.items()]
        inputs.append(helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, []))
        for name in overridable:
            array = self.constants[name]
            if array.dtype == np.float32:  # a shape from a feed would have to fit
                inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape))
        graph = helper.make_graph(
            self.nodes,
            "random",
            inputs,
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, self.values[n]) for n in made if n in outputs],
            [ir.to_proto(ir.tensor(a, name=n)) for n, a in self.constants.items()],
        )
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape of an elementwise result, whatever the symbols stand for."""
    rank = max(len(a), len(b))
    found: list[Dim] = []
    for x, y in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if x not in {y, 1} and y != 1:
            return None
        found.append(y if x == 1 else x)
    return tuple(found)


def small(shape: Shape) -> bool:
    return len(shape) <= 4 and prod(d if isinstance(d, int) else 3 for d in shape) <= MOST_ELEMENTS


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    return Builder(draw).model()


def count(model: onnx.ModelProto) -> int:
    return sum(len(g) for g in graphs(ir.from_proto(model)))


def attempted(model: onnx.ModelProto, values: Feed) -> dict[str, Any]:
    """The outputs, where the runtime is up to the graph as it was."""
    try:
        return run(model, values)
    except InputError:
        reject()


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(model=models(), growth=st.sampled_from((0, 1000)))
def test_random_graphs_keep_their_meaning(model: onnx.ModelProto, growth: int, evaluate: Evaluator) -> None:
    source = load(model)
    passes = [p() for p in LOSSLESS]
    result = rewritten(source, passes, evaluate, growth=growth)
    told = f"{show(model)}\nbecame\n{show(result.model)}\nby {[str(e) for e in result.edits]}"

    onnx.checker.check_model(result.model)
    assert not list(invariants.broken(ir.from_proto(result.model))), told
    assert result.model.graph.input == model.graph.input, told
    assert result.model.graph.output == model.graph.output, told
    assert count(result.model) <= count(model), told

    exact = all(e.exactness is Exactness.BITWISE for e in result.edits)
    # The runtime adds up in another order once a weight is an initializer, which it packs beforehand.
    packs = any(n.op_type in PRODUCTS for n in model.graph.node)
    for seed, extent in enumerate((1, 2, 3)):
        dims: defaultdict[str, int] = defaultdict(lambda extent=extent: extent)  # type: ignore[misc]
        given_values = feed(model, dims, seed=seed, edges=exact)
        for each in (given_values, given_values | overrides(model, dims, seed=seed)):
            expected = attempted(model, each)
            found = differences(expected, run(result.model, each), relative=0 if exact and not packs else ROUNDED)
            assert not found, f"{told}\n{found}"

    again = rewritten(load(result.model), passes, evaluate, growth=0)
    assert not again.edits, f"{told}\nand then\n{show(again.model)}\nby {[str(e) for e in again.edits]}"
