from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import parser

from graphopt.errors import InputError, UsageError
from graphopt.run.compare import Comparison, OutputError, Reference, similar
from graphopt.run.interface import changes
from graphopt.run.machine import Machine
from graphopt.run.session import Session
from tests.support.faking import FakeCuda

EPS = float(np.finfo(np.float32).eps)


def model(graph: str, opset: int = 21) -> bytes:
    return bytes(parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {graph}').SerializeToString())


def times(factor: float) -> bytes:
    return model(f"g (float[n] x) => (float[n] y) <float f = {{{factor!r}}}> {{ y = Mul(x, f) }}")


def plus(offset: float) -> bytes:
    return model(f"g (float[n] x) => (float[n] y) <float d = {{{offset!r}}}> {{ y = Add(x, d) }}")


def feeds(*rows: Any, dtype: Any = np.float32) -> list[dict[str, Any]]:
    return [{"x": np.array(row, dtype)} for row in rows]


def tolerance(reference: Reference) -> float:
    """That of the only output, for its largest values."""
    (noise,) = reference._noise.values()
    return float(noise.tolerances().max())


def only(comparison: Comparison) -> OutputError:
    (output,) = comparison.outputs
    return output


TWO = feeds([1, 2, -4], [3, 0.5])


def test_the_original_is_equal_to_itself() -> None:
    comparison = Reference(times(1.0), TWO).compare(times(1.0))
    assert comparison
    assert comparison.feeds == 2
    output = only(comparison)
    assert (output.max_abs, output.sqnr_db, output.note, output.evidence) == (0, None, "", True)


def test_the_least_tolerance_is_32_eps_of_the_scale() -> None:
    reference = Reference(times(1.0), TWO)
    assert tolerance(reference) == 8 * 4 * EPS * 4
    assert reference.compare(plus(32 * EPS * 4 * 0.9))
    wrong = reference.compare(plus(32 * EPS * 4 * 1.1))
    assert not wrong
    assert only(wrong).note == "the error exceeds the tolerance"


@pytest.mark.parametrize(("dtype", "kind"), [("float16", np.float16), ("double", np.float64)])
def test_eps_is_that_of_the_type(dtype: str, kind: Any) -> None:
    same = model(f"g ({dtype}[n] x) => ({dtype}[n] y) {{ y = Identity(x) }}")
    assert tolerance(Reference(same, feeds([4, 1], dtype=kind))) == 32 * float(np.finfo(kind).eps) * 4


def test_bfloat16_outputs_are_compared() -> None:
    cast = "g (float[n] x) => (bfloat16[n] y) { y = Cast <to = 16> (x) }"
    reference = Reference(model(cast), TWO)
    assert tolerance(reference) == 32 * float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps) * 4  # type: ignore[no-untyped-call]
    assert reference.compare(model(cast))


def test_noise_of_the_original_widens_the_tolerance() -> None:
    reference = Reference(times(1.0), TWO, noisy=[times(1.001)])
    assert tolerance(reference) == pytest.approx(8 * 0.004, rel=1e-3)
    assert reference.compare(times(1.007))
    assert not reference.compare(times(1.009))


def test_noise_that_does_not_run_is_noted() -> None:
    reference = Reference(times(1.0), TWO, noisy=[b"no model"])
    assert reference.notes[0].startswith("with injected noise: onnxruntime does not load the model")
    assert tolerance(reference) == tolerance(Reference(times(1.0), TWO))


def test_given_tolerances_replace_the_derived_one() -> None:
    reference = Reference(times(1.0), TWO)
    assert reference.compare(times(1.05), rtol=0.06)
    assert not reference.compare(times(1.05), rtol=0.04)
    assert not reference.compare(plus(0.1), rtol=0.1), "0.5 may be off by 0.05 only"
    assert reference.compare(plus(0.1), atol=0.11)
    strict = only(reference.compare(plus(EPS * 4), atol=0.0))
    assert str(strict) == "output 'y' is off by 4.77e-07 where no error is allowed"


@pytest.mark.parametrize(("atol", "rtol"), [(np.nan, None), (None, np.nan), (-1.0, 0.1), (0.1, np.inf)])
def test_tolerances_that_allow_everything_or_nothing_are_refused(atol: float | None, rtol: float | None) -> None:
    with pytest.raises(UsageError, match=r"[ar]tol is (nan|-1\.0|inf): give a number that is 0 or more"):
        Reference(times(1.0), TWO).compare(times(1.0), atol=atol, rtol=rtol)


def test_errors_are_measured() -> None:
    output = only(Reference(times(1.0), TWO).compare(times(1.1)))
    assert output.max_abs == pytest.approx(0.4)
    assert output.max_rel == pytest.approx(0.1)
    assert output.sqnr_db == pytest.approx(20, abs=1e-3)
    assert output.share == pytest.approx(0.4 / output.tolerance)
    assert str(output) == f"output 'y' is off by {output.share:.3g} times its tolerance, at most by 0.4"


# -- several populations in one output -------------------------------------------------------------------------------

MASKED = """g (float[n,4] x) => (float[n,4] y) <float[4,4] w = {%s}, float low = {%s}, float zero = {0}> {
  a = MatMul(x, w) m = Less(x, zero) y = Where(m, low, a)
}"""
MIXED = """g (float[n,4] x) => (float[n,8] y) <float[4,4] w = {%s}, float big = {1e6}> {
  a = MatMul(x, w) b = Softmax(a) c = Mul(x, big) y = Concat <axis = 1> (b, c)
}"""
TURNED = """g (float[n,4] x) => (float[n,4] y)
<float[4,4] w = {%s}, float low = {%s}, float zero = {0}, int64[4] order = {3,1,0,2}> {
  u = Gather <axis = 1> (x, order) v = Gather <axis = 0> (w, order) a = MatMul(u, v) m = Less(x, zero)
  y = Where(m, low, a)
}"""


def weights(seed: int) -> str:
    return ", ".join(f"{v:.6f}" for v in np.random.default_rng(seed).normal(size=16))


@pytest.mark.parametrize("low", ["-3.4e38", "-1e9", "-1e4"])
@pytest.mark.parametrize("rows", [2, 100])
def test_a_sentinel_excuses_no_other_value(low: str, rows: int) -> None:
    given = feeds(*(np.random.default_rng(s).normal(size=(rows, 4)) for s in range(2)))
    reference = Reference(model(MASKED % (weights(1), low)), given)
    assert reference.compare(model(MASKED % (weights(1), low)), way=reference.ways[1])
    turned = only(reference.compare(model(TURNED % (weights(1), low))))
    assert turned.max_abs > 0 or rows == 2, "the sums are rounded in another order"
    assert turned.share < 0.5
    wrong = only(reference.compare(model(MASKED % (weights(2), low))))
    assert not wrong
    assert wrong.share > 1e4


@pytest.mark.parametrize("rows", [2, 100])
def test_large_coordinates_excuse_no_probability(rows: int) -> None:
    given = feeds(*(np.random.default_rng(s).normal(size=(rows, 4)) for s in range(2)))
    reference = Reference(model(MIXED % weights(1)), given)
    assert reference.compare(model(MIXED % weights(1)), way=reference.ways[1])
    assert only(reference.compare(model(MIXED % weights(2)))).share > 1e4


def test_small_differences_of_large_numbers_are_the_tail_of_what_they_belong_to() -> None:
    """Rounding errors are those of the terms, however small the sum: no population of its own for small sums."""
    sums = "g (float[n,4] x) => (float[n] y) <int64[1] axis = {1}> { y = ReduceSum <keepdims = 0> (x, axis) }"
    other = """g (float[n,4] x) => (float[n] y) <int64[1] axis = {1}, int64[4] order = {3,1,0,2}> {
      a = Gather <axis = 1> (x, order) y = ReduceSum <keepdims = 0> (a, axis) }"""
    x = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    found = only(Reference(model(sums), [{"x": x}]).compare(model(other)))
    assert found
    assert found.max_abs > 0


def test_nan_and_infinity_must_stay_where_they_are() -> None:
    log = "g (float[n] x) => (float[n] y) { y = Log(x) }"
    reference = Reference(model(log), feeds([1, 0, -1, 2]))
    assert reference.compare(model(log))
    finite = model("""g (float[n] x) => (float[n] y) <float low = {1e-9}> { a = Max(x, low) y = Log(a) }""")
    assert only(reference.compare(finite)).note == "2 of 4 values are NaN or infinite in only one of the two"
    assert tolerance(reference) == pytest.approx(32 * EPS * np.log(2))


def test_an_infinity_of_the_other_sign_differs() -> None:
    inverse = "g (float[n] x) => (float[n] y) <float one = {1}> { y = Div(one, x) }"
    other = "g (float[n] x) => (float[n] y) <float one = {1}> { a = Abs(x) y = Div(one, a) }"
    assert not Reference(model(inverse), feeds([-0.0, 1])).compare(model(other))


FLOOR = "g (float[n] x) => (int64[n] y) <float d = {%s}> { a = Add(x, d) b = Floor(a) y = Cast <to = 7> (b) }"


def test_integers_must_be_equal() -> None:
    reference = Reference(model(FLOOR % 0.0), TWO)
    assert reference.compare(model(FLOOR % 0.25))
    output = only(reference.compare(model(FLOOR % 0.5)))
    assert (output.passed, output.max_abs, output.tolerance) == (False, 1, 0)
    assert str(output) == "output 'y': 1 of 5 values differ"


def test_integers_on_which_the_original_disagrees_are_undecided() -> None:
    reference = Reference(model(FLOOR % 0.0), TWO, noisy=[model(FLOOR % 0.5)])
    output = only(reference.compare(model(FLOOR % 0.5)))
    assert output
    assert output.undecided == 1
    assert not reference.compare(model(FLOOR % 1.0)), "the other positions count"


def test_where_the_original_disagrees_everywhere_there_is_no_evidence() -> None:
    output = only(Reference(model(FLOOR % 0.0), TWO, noisy=[model(FLOOR % 1.0)]).compare(model(FLOOR % 5.0)))
    assert output
    assert not output.evidence
    assert output.note == "undecided: the original's own runs disagree"


def test_where_noise_drowns_the_values_there_is_no_evidence() -> None:
    comparison = Reference(times(1.0), TWO, noisy=[times(1.5)]).compare(times(4.0))
    assert comparison
    assert not comparison.evidence
    assert only(comparison).note == "no evidence: the original's own noise is as large as its values"


def test_where_the_original_disagrees_in_shape_the_feed_is_undecided() -> None:
    found = "g (float[n] x) => (int64[1,m] y) <float d = {%s}> { a = Add(x, d) b = Floor(a) y = NonZero(b) }"
    reference = Reference(model(found % 0.0), feeds([1, 0.5], [1, 2]), noisy=[model(found % 0.5)])
    output = only(reference.compare(model(found % 0.5)))
    assert output
    assert output.undecided == 1


def test_strings_are_compared() -> None:
    same = model("g (string[n] x) => (string[n] y) { y = Identity(x) }")
    other = model("g (string[n] x) => (string[n] y) { y = StringConcat(x, x) }")
    reference = Reference(same, feeds(["a", "B"], ["c"], dtype=object))
    assert reference.compare(same)
    assert only(reference.compare(other)).note == "3 of 3 values differ"


def test_sequences_are_compared_tensor_by_tensor() -> None:
    split = """g (float[n] x) => (seq(float[k]) y) <float f = {%s}, int64 s = {%d}>
      { a = Mul(x, f) y = SplitToSequence(a, s) }"""
    reference = Reference(model(split % (1.0, 2)), feeds([1, 2, 3, 4]))
    assert reference.compare(model(split % (1.0, 2)))
    assert not reference.compare(model(split % (1.1, 2)))
    assert only(reference.compare(model(split % (1.0, 1)))).note == "2 tensors became 4"


def test_shapes_must_be_exact() -> None:
    flat = model("g (float[n] x) => (float[n] y) <int64[1] s = {-1}> { y = Reshape(x, s) }")
    column = model(
        "g (float[n] x) => (float y) <int64[2] s = {-1,1}> { y = Reshape(x, s) }".replace("float y", "float[?,?] y")
    )
    comparison = Reference(flat, TWO).compare(column)
    assert only(comparison).note == "the shape [3] became [3, 1]"
    assert comparison.differences == ("output 'y' had 1 axes, has 2",)


def test_what_does_not_depend_on_the_feed_is_no_evidence() -> None:
    zero = model("g (float[n] x) => (float[n] y) <float f = {0}> { y = Mul(x, f) }")
    output = only(Reference(zero, TWO).compare(zero))
    assert output
    assert not output.evidence
    assert output.note == "no evidence: the original gives the same whatever the feed"
    assert not only(Reference(zero, TWO[:1]).compare(zero)).evidence
    nan = model("g (float[n] x) => (float[n] y) { a = Abs(x) b = Neg(a) y = Sqrt(b) }")
    assert not only(Reference(nan, TWO).compare(nan)).evidence
    assert not only(Reference(zero, TWO).compare(plus(0.0))), "it still counts"


def test_one_output_with_evidence_is_enough() -> None:
    both = model("g (float[n] x) => (float[n] y, float z) <float c = {1}> { y = Neg(x) z = Neg(c) }")
    assert Reference(both, TWO).compare(both).evidence
    constant = model("g (float[n] x) => (float z) <float c = {1}> { z = Neg(c) }")
    assert not Reference(constant, TWO).compare(constant).evidence


def test_constants_of_a_model_without_inputs_are_evidence() -> None:
    constant = model("g () => (float[2] z) <float[2] c = {1, 1}> { z = Neg(c) }")
    assert Reference(constant, [{}, {}]).compare(constant).evidence


def test_random_models_repeat_themselves() -> None:
    random = model("g (float[n] x) => (float[n] y) { a = RandomNormalLike(x) y = Add(x, a) }")
    assert Reference(random, TWO, Machine(seed=3)).compare(random)


def test_feeds_may_come_from_a_generator() -> None:
    assert Reference(times(1.0), (f for f in TWO)).compare(times(1.0)).feeds == 2


def test_an_original_that_does_not_run_is_an_input_error() -> None:
    with pytest.raises(InputError, match="the model fails on this feed"):
        Reference(model("g (float[2] x) => (float[2] y) { y = Neg(x) }"), TWO)


def test_one_level_of_optimization_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Machine.session

    def only_optimized(self: Machine, model: bytes, *, optimize: bool = True, lasting: bool = True) -> Session:
        if not optimize:
            raise InputError("no.")
        return make(self, model, lasting=lasting)

    monkeypatch.setattr(Machine, "session", only_optimized)
    reference = Reference(times(1.0), TWO)
    assert reference.notes == ("without optimizations: no.",)
    assert [way.optimize for way in reference.ways] == [True]
    assert reference.compare(times(1.0))


def test_a_candidate_that_does_not_run_is_a_difference() -> None:
    comparison = Reference(times(1.0), TWO).compare(b"no model")
    assert not comparison
    assert comparison.differences[0].startswith("the candidate does not run: onnxruntime does not load the model")


@pytest.mark.parametrize(
    ("candidate", "difference"),
    [
        ("g (float[n] x) => (float[n] z) { z = Neg(x) }", "output 'y' is now called 'z'"),
        ("g (float[n] x) => (float[n] y, float[n] z) { y = Neg(x) z = Abs(x) }", "output 'z' is new"),
        (
            "g (float[n] x) => (double[n] y) { y = Cast <to = 11> (x) }",
            "output 'y' was a tensor(float), is a tensor(double)",
        ),
        ("g (float[1] x) => (float[1] y) { y = Neg(x) }", "input 'x' had the shape [n], has [1]"),
        ("g (float[n] x, float u) => (float[n] y) { y = Neg(x) }", "input 'u' is new"),
        ("g (float[n] x, float w = {1}) => (float[n] y) { y = Mul(x, w) }", "overridable weight 'w' is new"),
    ],
)
def test_a_changed_interface_is_told_in_words(candidate: str, difference: str) -> None:
    original = Session(model("g (float[n] x) => (float[n] y) { y = Neg(x) }"))
    assert changes(original, Session(model(candidate))) == (difference,)


def test_a_lost_overridable_weight_is_told_and_another_name_of_a_dimension_is_not() -> None:
    free = Session(model("g (float[n] x, float w = {1}) => (float[n] y) { y = Mul(x, w) }"))
    bound = Session(model("g (float[k] x) => (float[k] y) <float w = {1}> { y = Mul(x, w) }"))
    assert changes(free, bound) == ("overridable weight 'w' is missing",)


def test_a_lost_output_fails_even_if_the_rest_is_equal() -> None:
    both = model("g (float[n] x) => (float[n] y, float[n] z) { y = Neg(x) z = Abs(x) }")
    comparison = Reference(both, TWO).compare(model("g (float[n] x) => (float[n] y) { y = Neg(x) }"))
    assert comparison.differences == ("output 'z' is missing",)
    assert only(comparison)
    assert not comparison


def test_knowing_more_about_an_output_is_no_change() -> None:
    a = Session(model("g (float[n] x) => (float[?] y) { y = Neg(x) }"))
    b = Session(model("g (float[n] x) => (float[n] y) { y = Neg(x) }"))
    assert changes(a, b) == ()


def test_similar_results_differ_by_rounding_only() -> None:
    x = np.array([1, -4], np.float32)
    assert similar({"y": x, "n": np.array([1])}, {"y": x * np.float32(1.001), "n": np.array([2])})
    assert not similar({"y": x}, {"y": x * np.float32(1.1)})
    assert similar({"y": x}, {"y": x[:1]}), "another shape is for others to judge"


def test_results_are_json() -> None:
    text = json.dumps(asdict(Reference(times(1.0), TWO).compare(times(1.1))), allow_nan=False)
    assert json.loads(text)["outputs"][0]["name"] == "y"


def test_on_cuda_the_tolerance_is_its_distance_from_the_cpu() -> None:
    reference = Reference(times(1.0), TWO, FakeCuda(device="auto", error=1e-3))
    assert reference.provider == "CUDAExecutionProvider"
    assert [way.words for way in reference.ways] == ["without optimizations", "with optimizations", "on the CPU"]
    assert tolerance(reference) == pytest.approx(8 * 4e-3, rel=1e-3)
    assert all(reference.compare(times(1.002), way) for way in reference.ways)
    assert not reference.compare(times(1.02), reference.ways[-1])


def test_on_cuda_both_models_run_on_the_cpu_as_well() -> None:
    reference = Reference(times(1.0), TWO, FakeCuda(device="cuda"))
    ran = [way.session(times(1.0)).provider for way in reference.ways]
    assert ran == ["CUDAExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert len(Reference(times(1.0), TWO, FakeCuda(device="cuda"), twice=False).ways) == 2


def test_a_candidate_that_cuda_refuses_does_not_quietly_run_on_the_cpu() -> None:
    machine = FakeCuda(device="auto", refused=times(2.0))
    assert "CUDA has no kernel" in Reference(times(1.0), TWO, machine).compare(times(2.0)).differences[0]
    reference = Reference(times(2.0), TWO, machine)
    assert reference.provider == "CPUExecutionProvider"
    assert {way.machine.device for way in reference.ways} == {"cpu"}, "what the original ran on"
