from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

from graphopt.errors import InputError, NeedsData, UsageError
from graphopt.graph.domain import Domain
from graphopt.run.child import Child
from graphopt.run.dims import Binding, Extents
from graphopt.run.feeds import Feeds, generate
from graphopt.run.session import Port, Session

SHARED = Path(__file__).parents[2].parent / "shared"


def model(graph: str, opset: int = 21) -> bytes:
    return bytes(parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {graph}').SerializeToString())


def dims(feeds: Feeds) -> list[dict[str, int]]:
    """The distinct bindings, without that of single rows."""
    found: list[dict[str, int]] = []
    for binding in feeds.bindings:
        if binding.dims not in found:
            found.append(dict(binding.dims))
    first, *more = found
    return [first, *(d for d in more if any(n not in {1, first[s]} for s, n in d.items()))]


def extents(*shapes: tuple[int | str | None, ...]) -> Extents:
    return Extents([Port(f"x{i}", np.dtype(np.float32), shape, "tensor") for i, shape in enumerate(shapes)])


@pytest.mark.parametrize(
    ("shapes", "symbols", "first"),
    [
        ([("n", 3), ("n", None)], ("n", "x1[1]"), (7, 3)),
        ([("past + seq",), ("seq",)], ("past", "seq"), (14,)),
        ([("2*seq+1",)], ("seq",), (15,)),
        ([("Max(n, 2*m)",), ("n", "m")], ("n", "m"), (14,)),
        ([("floor(n/2)",), ("n",)], ("n",), (3,)),
        ([("n // 2",), ("n",)], ("n",), (3,)),
        ([("n-1",), ("n",)], ("n",), (6,)),
        ([("batch-size", "a/b")], ("batch-size", "a/b"), (7, 7)),
        (
            [("unk__12", "N.1", "x:0", "a b", "f(a)", "n**9")],
            ("unk__12", "N.1", "x:0", "a b", "f(a)", "n**9"),
            (7,) * 6,
        ),
    ],
)
def test_dimensions_are_numbers_symbols_or_expressions(shapes: Any, symbols: Any, first: Any) -> None:
    found = extents(*shapes)
    assert found.symbols == symbols
    assert found.shape("x0", dict.fromkeys(symbols, 7)) == first


def test_impossible_extents_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        extents(("n-9",), ("n",)).shape("x0", {"n": 7})
    with pytest.raises(ValueError, match="undefined"):
        extents(("m//n",), ("n", "m")).shape("x0", {"n": 0, "m": 1})


def test_feeds_at_two_bindings_and_one_with_a_single_row() -> None:
    m = model(
        "g (float[n,s] x, float[n,s,4] z) => (float[n,s,4] y) { a = Unsqueeze(x, two) y = Add(a, z) }".replace(
            "{ a", "<int64[1] two = {2}> { a"
        )
    )
    feeds = generate(m)
    assert dims(feeds) == [{"n": 2, "s": 5}, {"n": 3, "s": 7}]
    assert [f["z"].shape for f in feeds] == [(2, 5, 4)] * 3 + [(3, 7, 4)] * 2 + [(1, 5, 4)]
    assert str(feeds) == "6 generated feeds (n=2, s=5 and n=3, s=7 and n=1, s=5)"
    signs = [np.sign(f["z"]).min() for f in feeds]
    assert signs == [-1, 1, -1, -1, 1, -1], "normal, then uniform between 0 and 1"
    assert [bool(np.abs(f["z"]).max() > 6) for f in feeds] == [False, False, True, False, False, False]
    for feed in feeds:
        Session(m).run(feed)


def test_the_same_seed_gives_the_same_feeds() -> None:
    m = model("g (float[n] x, int64[n] k) => (float[n] y) { c = Cast <to = 1> (k) y = Mul(x, c) }")
    first, again, other = (generate(m, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(first.feeds[0]["x"], other.feeds[0]["x"])


def test_more_can_be_drawn_at_the_first_binding() -> None:
    feeds = generate(model("g (float[n] x) => (float[n] y) { y = Neg(x) }"))
    assert np.array_equal(feeds.draw(0)["x"], feeds.feeds[0]["x"])
    assert feeds.draw(7)["x"].shape == (2,)
    assert not np.array_equal(feeds.draw(7)["x"], feeds.draw(9)["x"])


def test_a_static_model_has_one_binding() -> None:
    feeds = generate(model("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }"))
    assert len(feeds) == 3
    assert dims(feeds) == [{}]
    assert str(feeds) == "3 generated feeds (shapes as declared)"


def test_a_model_without_inputs_has_empty_feeds() -> None:
    assert generate(model("g () => (float[2] y) <float[2] c = {1, 2}> { y = Neg(c) }")).feeds == ({}, {})


def test_set_dims_are_obeyed() -> None:
    m = model("g (float[n,s] x, float[?] z) => (float[n,s] y) { y = Neg(x) }")
    assert dims(generate(m, set_dims={"n": 1})) == [{"n": 1, "s": 5, "z[0]": 2}, {"n": 1, "s": 7, "z[0]": 3}]
    assert dims(generate(m, set_dims={"n": 4, "s": 6, "z[0]": 3})) == [{"n": 4, "s": 6, "z[0]": 3}]
    with pytest.raises(UsageError, match=r"^--set batch: .* they have: n, s, z\[0\]$"):
        generate(m, set_dims={"batch": 2})


def test_only_what_can_vary_varies() -> None:
    fixed_length = model(
        "g (float[n,s] x) => (float[n,16] y) <float[1,16] b = {" + ",".join("1" * 16) + "}> { y = Add(x, b) }"
    )
    assert dims(generate(fixed_length)) == [{"n": 2, "s": 16}, {"n": 3, "s": 16}]


def test_dimensions_that_must_be_equal_vary_together() -> None:
    square = model("g (float[n,h,w] x) => (float[n,h,w] y) { t = Transpose <perm = [0,2,1]> (x) y = Add(x, t) }")
    assert dims(generate(square)) == [{"n": 2, "h": 5, "w": 5}, {"n": 3, "h": 7, "w": 7}]


def test_numbers_in_error_messages_are_tried() -> None:
    odd = model("g (float[n,s] x) => (float[?,37] y) <int64[2] shape = {-1,37}> { y = Reshape(x, shape) }")
    assert dims(generate(odd)) == [{"n": 2, "s": 37}, {"n": 3, "s": 74}]


CACHED = """g (float[b,2,past,4] cache, float[b,2,seq,4] new, float[b,1,1,{total}] mask) => (float[b,2,?,?] y) {{
  keys = Concat <axis = 2> (cache, new)
  turned = Transpose <perm = [0,1,3,2]> (keys)
  scores = MatMul(new, turned)
  y = Add(scores, mask)
}}"""


@pytest.mark.parametrize("total", ["past + seq", "total"])
def test_a_sum_of_dimensions_is_found_whether_it_is_named_or_not(total: str) -> None:
    feeds = generate(model(CACHED.format(total=f'"{total}"' if " " in total else total)))
    first, second = dims(feeds)
    assert all(first[s] != second[s] for s in first)
    assert all(f["mask"].shape[-1] == f["cache"].shape[2] + f["new"].shape[2] for f in feeds)


def test_images_are_square_first_and_then_not() -> None:
    halves = """g (float[n,3,h,w] x) => (float[n,3,?,?] y) {
      a = MaxPool <kernel_shape = [32,32], strides = [32,32]> (x)
      y = Neg(a)
    }"""
    assert dims(generate(model(halves))) == [{"n": 2, "h": 32, "w": 32}, {"n": 3, "h": 64, "w": 96}]


def test_domains_bound_the_values() -> None:
    lookup = """g (int64[n,s] ids, float[n,s] f, int64[n,s] rising) => (float[n,s] y) <float[3] table = {1,2,3}> {
      a = Gather(table, ids) b = Gather(table, rising) c = Add(a, b) y = Add(c, f)
    }"""
    domains = {"ids": Domain(0, 3), "rising": Domain(-3, 3, ascending=True), "f": Domain(low=5)}
    for feed in generate(model(lookup), domains=domains):
        assert set(feed["ids"].ravel()) <= {0, 1, 2}
        assert feed["rising"].min() < 0
        assert (np.diff(feed["rising"], axis=-1) >= 0).all()
    assert [bool(feed["f"].min() >= 5) for feed in generate(model(lookup), domains=domains)].count(False) == 1


def least(graph: str, **domains: Domain) -> list[float]:
    """The smallest value in each feed at the first binding."""
    feeds = generate(model(graph), domains=domains)
    return [float(f["x"].min()) for f, b in zip(feeds, feeds.bindings, strict=True) if b == feeds.bindings[0]]


def test_a_feed_is_bolder_where_the_model_takes_it() -> None:
    assert [v < 0 for v in least("g (int64[n,9] x) => (int64[n,9] y) { y = Abs(x) }")] == [False, False, True]
    rooted = "g (float[n,9] x) => (float[n,9] y) { a = Abs(x) y = Sqrt(a) }"
    assert [v < 0 for v in least(rooted, x=Domain(0))] == [False, False, True]


def test_a_feed_is_no_bolder_than_the_model_takes() -> None:
    root = "g (float[n,9] x) => (float[n,9] y) { y = Sqrt(x) }"
    assert [v < 0 for v in least(root, x=Domain(0))] == [False, False, False], "large, but of one sign"
    unsigned = "g (int64[n,9] x) => (float[n,9] y) { a = Cast <to = 1> (x) y = Sqrt(a) }"
    assert [v < 0 for v in least(unsigned)] == [False, False], "nothing else is left to try"


def test_single_rows_only_where_they_run() -> None:
    second = "g (float[n,4] x) => (float[1,4] y) <int64[1] i = {1}> { y = Gather(x, i) }"
    assert 1 not in {b.dims["n"] for b in generate(model(second)).bindings}


def test_lengths_reach_the_whole_extent_and_nothing_is_drawn_above() -> None:
    padded = model("g (float[t,n] x, int64[n] k) => (float[t,n] y) { y = ReverseSequence(x, k) }")
    feeds = generate(padded, domains={"k": Domain(1, "t")}, set_dims={"t": 2, "n": 64})
    assert {int(v) for feed in feeds for v in feed["k"]} == {1, 2}
    empty = generate(padded, domains={"k": Domain(2, 1)}, set_dims={"t": 2, "n": 4})
    assert {int(v) for feed in empty for v in feed["k"]} == {2}
    floats = generate(model("g (float[4] x) => (float[4] y) { y = Neg(x) }"), domains={"x": Domain(2, 1)})
    assert {float(v) for feed in floats for v in feed["x"]} == {2.0}


def test_a_domain_may_end_at_a_symbolic_dimension() -> None:
    pick = model("g (float[s] x, int64[k] i) => (float[k] y) { y = Gather(x, i) }")
    feeds = generate(pick, domains={"i": Domain(0, "s")}, set_dims={"s": 3, "k": 200})
    assert {int(v) for feed in feeds for v in feed["i"]} == {0, 1, 2}


def test_without_a_domain_smaller_ranges_are_tried() -> None:
    lookup = model("g (int64[n,s] ids) => (float[n,s] y) <float[2] table = {1,2}> { y = Gather(table, ids) }")
    assert {int(v) for feed in generate(lookup) for v in feed["ids"].ravel()} == {-2, -1, 0, 1}


def test_a_lone_integer_stays_small_and_a_lone_truth_value_takes_both() -> None:
    m = model("g (int64 trips, bool flag, float[2] x) => (float[2] y) { y = Neg(x) }")
    feeds = generate(m, domains={"trips": Domain(0, 2**40)})
    assert all(1 <= f["trips"] <= 4 for f in feeds)
    assert [bool(f["flag"]) for f in feeds] == [True, False, True, False]


def test_a_crash_is_only_a_failed_try() -> None:
    divide = model("g (int64[n] x) => (int64[n] y) <int64 twelve = {12}> { y = Div(twelve, x) }")
    assert all((feed["x"] > 0).all() for feed in generate(divide))


def test_each_branch_sees_floats_of_both_signs() -> None:
    then, other = (
        "then_branch = t () => (float[N] p) { p = Relu (x) }",
        "else_branch = e () => (float[N] q) { q = Abs (x) }",
    )
    feeds = generate(model(f"g (bool c, float[N] x) => (float[N] y) {{ y = If (c) <{then}, {other}> }}"))
    for taken in (True, False):
        values = np.concatenate([f["x"] for f in feeds if bool(f["c"]) is taken])
        assert values.min() < 0 < values.max()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "double", "uint8", "int8", "bool", "string", "uint64"])
def test_every_type_has_values(dtype: str) -> None:
    feeds = generate(model(f"g ({dtype}[n,4] x) => ({dtype}[n,4] y) {{ y = Identity(x) }}"))
    assert len(feeds) >= 5
    assert feeds.feeds[0]["x"].shape == (2, 4)


def test_sequences_and_optionals() -> None:
    joined = model("g (seq(float[n,m]) s) => (float[k,m] y) { y = ConcatFromSequence <axis = 0> (s) }")
    assert [v.shape for v in generate(joined).feeds[0]["s"]] == [(2, 5)] * 3
    maybe = model("g (optional(float[2]) o) => (bool y) { y = OptionalHasElement(o) }")
    assert [feed["o"] is None for feed in generate(maybe)] == [False, True, False]


def test_unknown_ranks_are_searched() -> None:
    parsed = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
      g (float x) => (float[?,?] y) { y = Transpose <perm = [1,0]> (x) }""")
    parsed.graph.input[0].type.tensor_type.ClearField("shape")
    assert generate(parsed.SerializeToString()).feeds[0]["x"].ndim == 2


def test_what_never_runs_needs_data() -> None:
    never = model("g (float[2,3] x) => (float[?,?] y) <int64[2] s = {5,5}> { y = Reshape(x, s) }")
    with pytest.raises(NeedsData, match=r"so give --data \(the first try failed: Reshape"):
        generate(never)


def test_types_that_cannot_be_made_up_need_data() -> None:
    with pytest.raises(NeedsData, match=r"'z' of type tensor\(int4\): give --data"):
        generate(model("g (float[4] x, float s, int4 z) => (int4[4] y) { y = QuantizeLinear(x, s, z) }"))


def test_what_does_not_load_is_an_input_error() -> None:
    with pytest.raises(InputError, match="does not load"):
        generate(b"no model")


def test_a_binding_reads_as_text() -> None:
    assert str(Binding({"batch": 2, "seq": 5})) == "batch=2, seq=5"


def test_guessed_integers_must_not_mislead_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a fused attention, which takes its mask to be 0 or 1 whatever the graph says."""
    evaluate = Child.evaluate

    def fused(self: Child, model: bytes, feed: Any, *, optimize: bool = False, fetch: bool = True) -> dict[str, Any]:
        result = evaluate(self, model, feed, fetch=fetch)
        if optimize and fetch and feed["mask"].max() > 1:
            return {"y": result["y"] * 2}
        return result

    monkeypatch.setattr(Child, "evaluate", fused)
    masked = model("g (float[n,s] x, int64[n,s] mask) => (float[n,s] y) { m = Cast <to = 1> (mask) y = Mul(x, m) }")
    assert {int(v) for feed in generate(masked) for v in feed["mask"].ravel()} <= {-2, -1, 0, 1}
    known = generate(masked, domains={"mask": Domain(0, 3)})
    assert {int(v) for feed in known for v in feed["mask"].ravel()} == {0, 1, 2}


@pytest.mark.skipif(not (SHARED / "zoo").is_dir(), reason="the shared graphs are absent")
@pytest.mark.parametrize("name", ["control_flow", "sequences", "paddle_seg", "detection_nms", "decomposed_transformer"])
def test_exported_models_get_feeds(name: str) -> None:
    feeds = generate((SHARED / "zoo" / f"{name}.onnx").read_bytes())
    assert len(feeds) >= 5
    assert len(dims(feeds)) == 2
