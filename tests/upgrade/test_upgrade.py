"""Every version of every standard operator is known, and old and new forms compute the same."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from itertools import pairwise

import onnx
import onnx.checker
import onnx.parser
import onnx.shape_inference
import pytest

from graphopt.errors import InputError
from graphopt.graph.edit import Editor
from graphopt.graph.load import load
from graphopt.graph.nodes import key
from graphopt.graph.record import WHOLE, Exactness
from graphopt.protocol import Context, Ledger
from graphopt.run.session import Session
from graphopt.upgrade import Upgrade
from graphopt.upgrade.adapters import ADAPTERS
from graphopt.upgrade.opsets import HARMLESS, LACKING, REFUSED
from graphopt.upgrade.upgrade import OLDEST
from tests.support.models import cannot_evaluate, differences, feed, parse, rewritten, run, source

TARGET = 23
"""What old forms are compared at: the runtime has kernels for it."""


def history() -> dict[str, list[onnx.defs.OpSchema]]:
    """The versions of each standard operator, the oldest first."""
    found: dict[str, list[onnx.defs.OpSchema]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found[schema.name].append(schema)
    return {name: sorted(schemas, key=lambda s: s.since_version) for name, schemas in found.items()}


STEPS = [
    pytest.param(old, new, id=f"{new.name}-{new.since_version}")
    for schemas in history().values()
    for old, new in pairwise(schemas)
    if new.since_version > OLDEST
]


@pytest.mark.parametrize(("old", "new"), STEPS)
def test_every_version_is_in_one_table(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> None:
    """A new release of onnx brings versions that nobody has looked at yet: read both texts, then add them."""
    here = (new.name, new.since_version)
    tables = [here in ADAPTERS, here in REFUSED, new.name in HARMLESS.get(new.since_version, ())]
    assert sum(tables) == 1, f"{old.name} changes at opset {new.since_version}"
    if tables[2]:
        assert not list(narrower(old, new))


def narrower(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> list[str]:
    """What a node may have had in the old version and may not have in the new one, or has to have there."""
    found = narrower_attributes(old, new)
    if new.deprecated:
        found.append("it is deprecated")
    for what, formals, fresh in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        single = onnx.defs.OpSchema.FormalParameterOption.Single
        found += [f"{what} {f.name} is required" for f in fresh[len(formals) :] if f.option == single]
        if len(fresh) < len(formals):
            found.append(f"an {what} is gone")
        for a, b in zip(formals, fresh, strict=False):
            if not types(old, a) <= types(new, b):
                found.append(f"{what} {b.name} takes no {types(old, a) - types(new, b)}")
            if a.option != b.option and b.option == single:
                found.append(f"{what} {b.name} is required")
    tied = {(a.name, b.name) for a in new.inputs for b in new.inputs if a.type_str == b.type_str}
    free = {(a.name, b.name) for a in old.inputs for b in old.inputs if a.type_str != b.type_str}
    return found + [f"{a} and {b} have one type" for a, b in tied & free]


def narrower_attributes(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> list[str]:
    found = [f"{a} is gone" for a in old.attributes if a not in new.attributes]
    for name, attribute in new.attributes.items():
        before = old.attributes.get(name)
        if before is None:
            found += [f"{name} is required"] if attribute.required else []
        elif default(before) != default(attribute) or attribute.type != before.type:
            found.append(f"{name} has another default or type")
        elif attribute.required and not before.required:
            found.append(f"{name} is required")
    return found


def default(attribute: onnx.defs.OpSchema.Attribute) -> object:
    value = attribute.default_value
    return onnx.helper.get_attribute_value(value) if value.type else None


def types(schema: onnx.defs.OpSchema, formal: onnx.defs.OpSchema.FormalParameter) -> set[str]:
    known = {t.type_param_str: set(t.allowed_type_strs) for t in schema.type_constraints}
    return known.get(formal.type_str, {formal.type_str})


def test_no_table_names_what_does_not_exist() -> None:
    known = {(s.name, s.since_version) for schemas in history().values() for s in schemas}
    newest = onnx.defs.onnx_opset_version()
    named = {*ADAPTERS, *REFUSED, *((name, version) for version, names in HARMLESS.items() for name in names)}
    assert {(name, version) for name, version in named if version <= newest} <= known


# -- numbers ---------------------------------------------------------------------------------------------------------

SHAPE = "float[2,3,4,4]"
UNARY = {
    7: "Abs Acos Asin Atan Ceil Cos Elu Exp Floor HardSigmoid Identity LeakyRelu Log Neg Reciprocal Relu Selu Sigmoid "
    "Sin Softplus Softsign Sqrt Tan Tanh GlobalAveragePool GlobalMaxPool GlobalLpPool LpNormalization Transpose "
    "Flatten Softmax LogSoftmax Hardmax ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare ReduceLogSum ArgMax ArgMin Shape Size",
    9: "Acosh Asinh Cosh Sinh Sign Erf IsNaN NonZero MeanVarianceNormalization",
    10: "ThresholdedRelu IsInf",
    11: "Round",
    12: "Celu",
    14: "HardSwish",
    18: "Mish",
}
BINARY = {
    7: "Add Sub Mul Div Pow PRelu Greater Less Max Min Mean Sum MatMul",
    11: "Equal",
    12: "GreaterOrEqual LessOrEqual",
}
NODES = {
    7: [
        "y = Conv <kernel_shape = [1, 1]> (x, w)",
        "y = ConvTranspose <strides = [2, 2], pads = [0, 1, 1, 0]> (x, u)",
        "y = Cast <to = 7> (z)",
        "y = Concat <axis = 1> (x, x)",
        "y = DepthToSpace <blocksize = 1> (x)",
        "y = SpaceToDepth <blocksize = 2> (x)",
        "y = Gather <axis = 1> (x, i)",
        "y = InstanceNormalization (x, t, t)",
        "y = LRN <size = 3> (x)",
        "y = MaxPool <kernel_shape = [2, 2]> (x)",
        "y = LpPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
        "y = ReduceMean <axes = [1, 3], keepdims = 0> (x)",
        "y = ReduceSum <axes = [2]> (x)",
        "y = Slice <axes = [1, 3], starts = [1, 0], ends = [100, -1]> (x)",
        "y, y2 = TopK <k = 2> (x)",
        "y = Tile (x, r)",
        "y = Reshape (x, q)",
        'y = Pad <pads = [0, 0, 1, 1, 0, 0, -1, 2], mode = "edge"> (x)',
        'y = Upsample <mode = "nearest", scales = [1.0, 1.0, 1.5, 2.5]> (x)',
        'y = Upsample <mode = "linear", scales = [1.0, 1.0, 1.5, 2.5]> (x)',
        "a = Squeeze <axes = [0]> (e) y = Unsqueeze <axes = [0, 3]> (a)",
        "a = Squeeze (e) y = Neg (a)",
        "y, y2 = Split <axis = 3> (x)",
        "y = Gemm <alpha = 0.5, transB = 1> (m, m, k)",
        "y = BatchNormalization <epsilon = 0.25> (x, t, t, t, v)",
        "y, y2, y3 = LSTM <hidden_size = 2> (s, lw, lr)",
        "y, y2 = GRU <hidden_size = 2> (s, gw, gr)",
        "y, y2 = RNN <hidden_size = 2> (s, rw, rr)",
        "y = Softmax <axis = 3> (x)",
        "y = LogSoftmax <axis = 2> (x)",
        "y = Clip <min = -0.5> (x)",
        "y = And (b, b)",
        "y = Dropout <ratio = 0.5> (x)",
    ],
    8: ["y = Expand (t, p)"],
    9: [
        "y = ConstantOfShape (p)",
        "y = EyeLike (m)",
        "y = Where (b, x, w)",
        "y = OneHot <axis = 1> (i, d, o)",
        "y = Compress <axis = 1> (x, c)",
        "y = Flatten <axis = 2> (x)",
        "y = Scatter <axis = 1> (m, i2, m)",
        "y = Constant <value = float {1.5}> ()",
    ],
    10: [
        "y = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 1> (x, rois, i0)",
        "y = Mod <fmod = 1> (x, w)",
        "y = QuantizeLinear (x, h)",
        "a = QuantizeLinear (x, h) y = DequantizeLinear (a, h)",
        'y = Resize <mode = "linear"> (x, f)',
        "y = AveragePool <kernel_shape = [2, 2], ceil_mode = 1, strides = [2, 2]> (x)",
        "y = MaxPool <kernel_shape = [3, 3], ceil_mode = 1, strides = [2, 2], pads = [1, 1, 1, 1]> (x)",
        "y = ReverseSequence (m, l)",
        "y, y2 = TopK (x, g)",
        "y = Slice (x, j, n, j)",
    ],
    11: [
        "y = CumSum (x, d)",
        'y = Resize <mode = "nearest"> (x, z0, f)',
        'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, z0, f)',
        'y = Resize <mode = "cubic"> (x, z0, f)',
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric"> (x, z0, z0, p)',
        "y = GatherElements <axis = 1> (m, i2)",
        "y = GatherND (x, i2)",
        "y = ScatterElements <axis = 1> (m, i2, m)",
        "y = Range (d0, d, d1)",
        "y = Det (m2)",
        "y = Gemm (m, m3)",
        "y, y2, y3, y4 = Unique (x)",
        "y = Clip (x, h)",
        "y = Pad (x, pp, h)",
        'y = BitShift <direction = "LEFT"> (ub, ub)',
    ],
    12: ['y = Einsum <equation = "nchw->nc"> (x)', "y = ArgMax <select_last_index = 1> (x)"],
    13: [
        "y = ReduceSum (x, p)",
        "y, y2 = Split <axis = 3> (x)",
        "y = ReduceMax <axes = [-1]> (x)",
        "y = DequantizeLinear <axis = 0> (q8, qs)",
        'y = Pad <mode = "reflect"> (x, pp)',
    ],
    14: ["y = Trilu (x)", "y = Reshape <allowzero = 1> (x, q)", "y = BatchNormalization (x, t, t, t, v)"],
    15: ["y = Shape <start = 1> (x)", "y = CastLike (x, d)", "y = Pow (x, d)"],
    16: [
        "y = GridSample (x, grid)",
        'y = GridSample <mode = "nearest", padding_mode = "border"> (x, grid)',
        'y = GridSample <mode = "bicubic", align_corners = 1> (x, grid)',
        'y = ScatterElements <axis = 1, reduction = "add"> (m, i2, m)',
    ],
    17: ["y = LayerNormalization (x, k4)", "y = DFT <axis = 1> (dx)"],
    18: [
        'y = Resize <mode = "linear", antialias = 1> (x, z0, f)',
        "y, y2 = Split <num_outputs = 2, axis = 3> (x)",
        "y = Pad (x, p2, h, ax)",
        'y = ScatterElements <axis = 1, reduction = "max"> (m, i2, m)',
        "y = LpPool <kernel_shape = [2, 2], ceil_mode = 1> (x)",
    ],
    19: ['y = Resize <mode = "cubic", coordinate_transformation_mode = "half_pixel_symmetric"> (x, z0, f)'],
}
WEIGHTS = """float[2,3,1,1] w = {1, 2, 3, -1, -2, 0.5}, float[3,1,1,1] u = {1, -2, 3}, float[3] t = {1, -2, 0.5},
 float[3] v = {1, 2, 0.5}, int64[2] i = {2, 0}, int64[4] r = {1, 2, 1, 1}, int64[2] q = {6, -1}, float k = {0.5},
 float[1,2,1] e = {1, 2}, float[1,8,3] lw = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6},
 float[1,8,2] lr = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7},
 float[1,6,3] gw = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9},
 float[1,6,2] gr = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}, float[1,2,3] rw = {1, 2, 3, 4, 5, 6},
 float[1,2,2] rr = {1, 2, 3, 4}, int64[4] p = {2, 3, 4, 4}, int64 d = {2}, int64 d0 = {0}, int64 d1 = {1},
 float[2] o = {0, 1}, bool[3] c = {1, 0, 1}, int64[2,3] i2 = {0, 2, 1, 1, 0, 2}, float h = {0.25},
 float[4] f = {1, 1, 1.5, 2.5}, int64[3] l = {1, 2, 1}, int64[1] g = {2}, int64[1] j = {1}, int64[1] n = {3},
 float[0] z0 = {}, int64[8] pp = {0, 0, 1, 1, 0, 0, 2, 1}, uint8[2] ub = {1, 2}, int8[2,3] q8 = {1, 2, 3, 4, 5, 6},
 float[2] qs = {0.5, 0.25},
 float[1,4] rois = {0, 0, 3, 2}, float[1,5] roi5 = {0, 0, 0, 3, 2}, int64[1] i0 = {1}, float[4] k4 = {1, 2, 3, 4},
 int64[2] p2 = {1, 2}, int64[1] ax = {1}, float[3,2] m3 = {1, 2, 3, 4, 5, 6}"""
INPUTS = (
    f"{SHAPE} x, float[5] z, float[2,3] m, float[2,2] m2, float[3,1,3] s, bool[2,3,4,4] b, float[2,3,3,2] grid, "
    "float[1,5,4,1] dx"
)


def single(node: str, opset: int) -> onnx.ModelProto | None:
    """A model of one or two nodes at an opset; None where they are not valid in it."""
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> g ({INPUTS}) => (float y) <{WEIGHTS}> {{ {node} }}'
    model = onnx.parser.parse_model(text)
    graph = model.graph
    read = {name for n in graph.node for name in n.input}
    made = [name for n in graph.node for name in n.output if name not in read]
    inputs = [i for i in graph.input if i.name in read]
    weights = [t for t in graph.initializer if t.name in read]
    del graph.input[:], graph.initializer[:]
    graph.input.extend(inputs)
    graph.initializer.extend(weights)
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return model


def opsets(node: str, first: int) -> list[int]:
    """One opset for each version of the operators in `node`."""
    known = history()
    versions = {s.since_version for name in re.findall(r"= (\w+)", node) for s in known.get(name, ())}
    return sorted({first, *(v for v in versions if first < v < TARGET)})


GRAPHS = [
    *((v, f"y = {name} (x)") for v, names in UNARY.items() for name in names.split()),
    *((v, f"y = {name} (x, x)") for v, names in BINARY.items() for name in names.split()),
    *((v, node) for v, nodes in NODES.items() for node in nodes),
]
FOUND = {
    f"{opset} {node}": (model, target)
    for first, node in GRAPHS
    for target in [21 if any(name in node for name in LACKING[22]) else TARGET]
    for opset in opsets(node, first)
    if opset < target and not ("bicubic" in node and opset > 19)
    if (model := single(node, opset)) is not None
}
CASES = [pytest.param(*found, id=name) for name, found in FOUND.items()]


@pytest.mark.parametrize(("model", "target"), CASES)
def test_old_and_new_forms_compute_the_same(model: onnx.ModelProto, target: int) -> None:
    result = rewritten(load(model), [Upgrade(opset=target)])
    assert not result.misses
    assert [o.version for o in result.model.opset_import] == [target]
    onnx.checker.check_model(result.model)
    exact = all(e.exactness is Exactness.BITWISE for e in result.edits)
    for each in (feed(model, {}, seed=0), feed(model, {}, seed=1, edges=True)):
        assert not differences(run(model, each), run(result.model, each), relative=0.0 if exact else 1e-6)


def test_these_graphs_cover_all_adapters() -> None:
    seen = set()
    for model, target in FOUND.values():
        names = {n.op_type for n in model.graph.node}
        seen |= {(n, v) for n, v in ADAPTERS if n in names and model.opset_import[0].version < v <= target}
    assert {(n, v) for n, v in ADAPTERS if v <= TARGET} == seen


RANDOM = {
    "Bernoulli": "y = Bernoulli (x)",
    "GlobalLpPool": "y = GlobalLpPool (x)",
    "MaxRoiPool": "y = MaxRoiPool <pooled_shape = [2, 2]> (x, roi5)",
    "Multinomial": "y = Multinomial (m)",
    "RandomNormal": "y = RandomNormal <shape = [2]> ()",
    "RandomNormalLike": "y = RandomNormalLike (x)",
    "RandomUniform": "y = RandomUniform <shape = [2]> ()",
    "RandomUniformLike": "y = RandomUniformLike (x)",
    "RoiAlign": "y = RoiAlign (x, rois, i0)",
}


@pytest.mark.parametrize(("name", "version"), [(name, v) for v, names in LACKING.items() for name in sorted(names)])
def test_what_the_runtime_lacks(name: str, version: int) -> None:
    """Once it has a kernel, the version is a harmless one like all others."""
    old, new = single(RANDOM[name], version - 1), single(RANDOM[name], version)
    assert old is not None
    assert new is not None
    Session(old.SerializeToString(), optimize=False)
    with pytest.raises(InputError, match="not find an implementation"):
        Session(new.SerializeToString(), optimize=False)
    result = rewritten(load(old), [Upgrade(opset=version)])
    assert not result.edits
    assert "has no kernel" in result.misses[0].reason


# -- the pass --------------------------------------------------------------------------------------------------------

OLD = """<ir_version: 4, opset_import: ["" : 9]>
g (float[1,3] x) => (float[3] y) <float[3] w = {1, 2, 3}> {
  [one] a = Squeeze <axes = [0]> (x)
  [two] y = Add (a, w)
}"""


def test_it_is_one_edit_that_can_be_left_out() -> None:
    given = source(OLD)
    result = rewritten(given, [Upgrade(opset=17)])
    assert [(e.rule, e.root) for e in result.edits] == [("upgrade", WHOLE)]
    assert not rewritten(given, [Upgrade(opset=17)], editor=partial(Editor, limit=0)).edits
    assert not rewritten(given, [Upgrade(opset=17)], editor=partial(Editor, skip=result.edits)).edits


def test_weights_are_shared_and_names_stay() -> None:
    given = source(OLD)
    tensor = given.model.graph.initializers["w"].const_value
    edit = Editor(given.model)
    Upgrade(opset=17).run(edit, Context(cannot_evaluate, Ledger(0, 0)))
    assert edit.model is given.model
    assert edit.model.graph.initializers["w"].const_value is tensor
    assert [key(n) for n in edit.model.graph] == ["one", "two"]


def test_what_was_asked_to_stay_stays() -> None:
    result = rewritten(source(OLD), [Upgrade(opset=17)], editor=partial(Editor, keep=["one"]))
    assert not result.edits
    assert [m.reason for m in result.misses] == ["one was asked to stay"]
    assert rewritten(source(OLD), [Upgrade(opset=17)], editor=partial(Editor, keep=["two"])).edits


@pytest.mark.parametrize(("opset", "version"), [(10, 5), (17, 8), (21, 10), (23, 11)])
def test_the_ir_version_is_raised_as_far_as_needed(opset: int, version: int) -> None:
    assert rewritten(source(OLD), [Upgrade(opset=opset)]).model.ir_version == version
    newer = OLD.replace("ir_version: 4", "ir_version: 11")
    assert rewritten(source(newer), [Upgrade(opset=opset)]).model.ir_version == 11


def test_an_opset_that_is_not_known_is_the_newest() -> None:
    result = rewritten(source(OLD), [Upgrade(opset=1000)])
    assert result.model.opset_import[0].version == onnx.defs.onnx_opset_version()


def test_an_unknown_operator_keeps_the_opset() -> None:
    model = load(parse(OLD)).model
    model.graph[0].op_type = "Unheard"
    edit, ctx = Editor(model), Context(cannot_evaluate, Ledger(0, 0))
    Upgrade(opset=17).run(edit, ctx)
    assert not edit.edits
    assert "opset 9 has no such operator" in ctx.misses[0].reason
