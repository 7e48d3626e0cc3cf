from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graphopt.analysis import calibration
from graphopt.analysis.calibration import Calibration, Key, key_of, observe, recalled
from graphopt.analysis.histogram import Histogram
from graphopt.errors import InputError, MachineError, UsageError
from graphopt.run.files import read_npz
from graphopt.run.machine import Machine, news
from tests.analysis.test_moments import read
from tests.plan.models import counted, samples, stack
from tests.support.models import source

Array = NDArray[Any]

POINTWISE = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,4] x) => (float[N,4] y) { r = Relu(x) y = Sqrt(r) }"""
"""Nothing is summed up, so that values are the same whatever the runs."""


def same(a: Histogram, b: Histogram) -> bool:
    mine, other = a.arrays(), b.arrays()
    return all(np.array_equal(mine[n], other[n]) for n in mine)


def of(*parts: Array, samples: int = 1) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(part, samples)
    return made


def pointwise() -> ir.Model:
    return source(POINTWISE).model


def numbers(count: int, seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)}


def test_all_samples_are_counted_wherever_the_value_is() -> None:
    model, _ = stack([3, 6, 4, 2])
    given = samples(model, 70)
    found = observe(model, ["r0", "x", "y", "r0"], given)
    assert list(found) == ["r0", "x", "y"]
    assert same(found["x"], of(given["x"], samples=70))
    for name in ("r0", "y"):
        x = read(model, name, given)
        assert (found[name].count, found[name].samples) == (x.size, 70)
        assert found[name].high == pytest.approx(x.max(), rel=1e-5)
        assert found[name].average[1] == pytest.approx(x.reshape(70, -1).max(axis=1).mean(), rel=1e-5)
        assert found[name].zeros == (x == 0).sum()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_how_samples_are_cut_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = numbers(60)
    usual = observe(pointwise(), ["x", "r", "y"], given)
    monkeypatch.setattr(calibration, "_BATCH", size)
    apart = observe(pointwise(), ["x", "r", "y"], given)
    turned = observe(pointwise(), ["x", "r", "y"], {"x": given["x"][::-1]})
    feeds = observe(pointwise(), ["x", "r", "y"], [{"x": row[None]} for row in given["x"]])
    for name, made in usual.items():
        assert same(made, apart[name])
        assert same(made, turned[name])
        assert same(made, feeds[name])


def test_the_size_of_a_run_is_settled_by_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counted(monkeypatch, calibration, "_by_sample")
    usual = observe(pointwise(), ["r"], numbers(60))
    assert len(runs) == 2
    monkeypatch.setattr(calibration, "_HELD", 16 * 10)
    assert same(observe(pointwise(), ["r"], numbers(60))["r"], usual["r"])
    assert len(runs) == 2 + 6


def test_feeds_of_different_shapes_are_samples_each() -> None:
    model = source(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,M] x) => (float[N,M] y) { r = Relu(x) y = Neg(r) }"""
    ).model
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1 + i % 3, 5 + i)).astype(np.float32)} for i in range(9)]
    found = observe(model, ["y", "x"], feeds)
    assert same(found["x"], of(*(f["x"] for f in feeds)))
    assert same(found["y"], of(*(-np.maximum(f["x"], 0) for f in feeds)))
    assert same(found["y"], observe(model, ["y"], feeds[::-1])["y"])


def test_samples_are_found_along_the_axis_that_grows() -> None:
    """Transposed, merged with another axis, the same for all, or gone."""
    model = source(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,4] x) => (float[N,3,4] y)
        <int64[2] rows = {-1, 4}, float[2] c = {-1.0, 5.0}> {
            t = Transpose<perm = [2, 0, 1]>(x)
            m = Reshape(x, rows)
            k = Mul(c, c)
            s = ReduceMax<keepdims = 0>(x)
            y = Relu(x)
        }"""
    ).model
    x = np.random.default_rng(0).standard_normal((70, 3, 4)).astype(np.float32)
    found = observe(model, ["t", "m", "k", "s"], {"x": x})
    whole = of(x, samples=70)
    assert same(found["t"], whole)
    assert same(found["m"], whole)
    assert (found["k"].count, found["k"].samples, found["k"].average) == (140, 70, (1, 25))
    assert found["s"].high == x.max()


def test_a_model_that_fixes_how_many_it_takes() -> None:
    model = source(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[5,4] x) => (float[5,4] y) { r = Relu(x) y = Neg(r) }"""
    ).model
    given = numbers(23)
    found = observe(model, ["r"], given)["r"]
    assert same(found, of(np.maximum(given["x"][:20], 0), samples=20))
    with pytest.raises(InputError, match="takes 5 at once"):
        observe(model, ["r"], numbers(3))


def test_half_precision_is_counted_as_it_is() -> None:
    model = source(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (bfloat16[N,4] b, float16[N,4] h) {
            b = Cast<to = 16>(x)
            h = Cast<to = 10>(x)
        }"""
    ).model
    given = numbers(20)
    found = observe(model, ["b", "h"], given)
    assert same(found["h"], of(given["x"].astype(np.float16), samples=20))
    assert found["b"].count == 80
    assert float(np.float16(found["b"].high)) == found["b"].high


def test_what_is_not_finite_is_told_apart() -> None:
    model = source(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { l = Log(x) y = Neg(l) }"""
    ).model
    x = np.array([[-1, 0, 1, 2]] * 40, np.float32)
    found = observe(model, ["l"], {"x": x})["l"]
    assert (found.nans, found.below, found.above, found.count, found.low) == (40, 40, 0, 80, 0)


def test_several_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = stack([3, 6, 6, 6, 2])
    given, wanted, told = samples(model, 30), ["r0", "r1", "r2"], list[str]()
    sessions = counted(monkeypatch, Machine, "session")
    together = observe(model, wanted, given, Machine(progress=news(told.append)))
    assert len(sessions) == 1
    apart = observe(model, wanted, given, Machine(memory=4 * 6 * 36 * 2 * 2, progress=news(told.append)))
    assert len(sessions) == 1 + 3  # one to see shapes
    assert told == ["observing r0, and 2 others", "observing r0, and 1 other", "observing r2"]
    for name in wanted:
        assert apart[name].count == together[name].count
        assert apart[name].high == pytest.approx(together[name].high, rel=1e-5)


def test_memory_is_that_for_the_largest_feed() -> None:
    feeds = [{"x": np.ones((n, 4), np.float32)} for n in (1, 100, 1)]
    told = list[str]()
    observe(pointwise(), ["r", "y"], feeds, Machine(memory=100 * 4 * 4 * 3, progress=news(told.append)))
    assert told == ["observing r", "observing y"]


def test_only_what_is_needed_is_run() -> None:
    model = source(
        """<ir_version: 10, opset_import: ["" : 21, "custom" : 1]> g (float[N,4] x) => (float[N,4] y) {
            r = Relu(x) y = custom.Unknown(r)
        }"""
    ).model
    assert observe(model, ["r"], numbers(5))["r"].count == 20
    assert observe(model, [], numbers(5)) == {}


@pytest.mark.parametrize(("name", "error"), [("z", UsageError), ("w", UsageError), ("s", InputError)])
def test_what_cannot_be_observed_is_named(name: str, error: type[Exception]) -> None:
    model = source(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y)
        <float[4] w = {1.0, 2.0, 3.0, 4.0}> { s = Cast<to = 8>(x) y = Mul(x, w) }"""
    ).model
    with pytest.raises(error, match=f"'{name}'"):
        observe(model, [name], numbers(5))


@pytest.mark.parametrize("given", [[], {"x": np.zeros((0, 4), np.float32)}])
def test_without_samples_nothing_is_observed(given: Any) -> None:
    with pytest.raises(InputError, match="samples"):
        observe(pointwise(), ["r"], given)


def calibrated(model: ir.Model, given: Any) -> Calibration:
    return Calibration(key_of(model, given), observe(model, ["x", "r"], given))


def test_a_key_depends_on_weights_and_samples_alone() -> None:
    model, _ = stack([3, 4, 2], "Gemm")
    other, _ = stack([3, 4, 2], "Gemm", seed=1)
    given = samples(model, 10)["x"]
    key = key_of(model, {"x": given})
    assert key == key_of(model, {"x": given[::-1]})
    assert key == key_of(model, [{"x": row[None]} for row in given])
    assert key == key_of(model.clone(), {"x": given})
    assert key == key_of(model, {"x": given[:4]}) + key_of(model, {"x": given[4:]})
    assert key.graph != key_of(other, {"x": given}).graph
    assert key.data == key_of(other, {"x": given}).data
    assert key.data != key_of(model, {"x": given + 1}).data
    assert key.data != key_of(model, {"x": given[:9]}).data


def test_weights_outside_of_the_file_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.graph.save.EXTERNAL_ABOVE", 0)
    monkeypatch.setattr("graphopt.graph.shapes.SMALL", 0)
    keys = {key_of(stack([3, 4, 2], "Gemm", seed=seed)[0], []).graph for seed in (0, 0, 1)}
    assert len(keys) == 2


def test_a_calibration_is_kept_in_a_file(tmp_path: Path) -> None:
    model, path = pointwise(), tmp_path / "ranges.npz"
    made = calibrated(model, numbers(50))
    made.save(path)
    found = Calibration.load(path, key_of(model, numbers(50)))
    assert found.key == made.key
    assert list(found.histograms) == ["x", "r"]
    assert all(same(h, made.histograms[n]) for n, h in found.histograms.items())
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.npz"]
    Calibration(made.key, {}).save(path)
    assert Calibration.load(path).histograms == {}


def test_shards_merge_to_what_one_pass_gives(tmp_path: Path) -> None:
    model, given = pointwise(), numbers(50)["x"]
    for i, part in enumerate((given[:20], given[20:])):
        calibrated(model, {"x": part}).save(tmp_path / f"{i}.npz")
    merged = Calibration.load(tmp_path / "1.npz") + Calibration.load(tmp_path / "0.npz")
    whole = calibrated(model, {"x": given})
    assert merged.key == whole.key
    assert all(same(h, whole.histograms[n]) for n, h in merged.histograms.items())


def test_what_does_not_belong_together_is_not_merged() -> None:
    a = Calibration(Key("a", "1"), {"x": Histogram()})
    with pytest.raises(InputError, match="different models"):
        a + Calibration(Key("b", "1"), {"x": Histogram()})
    with pytest.raises(InputError, match="different values"):
        a + Calibration(Key("a", "1"), {"y": Histogram()})


def test_a_file_of_another_model_or_other_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ranges.npz"
    made = calibrated(pointwise(), numbers(50))
    made.save(path)
    with pytest.raises(InputError, match=r"other data; delete it|another model; delete it") as data:
        Calibration.load(path, key_of(pointwise(), numbers(50, seed=1)))
    with pytest.raises(InputError, match="another model; delete it"):
        Calibration.load(path, key_of(stack([3, 2], "Gemm")[0], numbers(50)))
    assert "other data" in str(data.value)


def test_a_damaged_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """Whichever byte is wrong, it is an `InputError` or, in what zip does not look at, no difference."""
    path = tmp_path / "ranges.npz"
    made = calibrated(pointwise(), numbers(50))
    made.save(path)
    good, said = path.read_bytes(), list[str]()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            found = Calibration.load(path)
        except InputError as error:
            said.append(str(error))
        else:
            assert found.key == made.key
            assert all(same(h, made.histograms[n]) for n, h in found.histograms.items())
    assert len(said) > len(good) // 7 // 2
    assert all(str(path) in sentence for sentence in said)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="npz"):
        Calibration.load(path)
    with pytest.raises(InputError, match="npz"):
        Calibration.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "changed",
    [
        {"calibration1": None},
        {"calibration1": np.array(["a"])},
        {"calibration1": np.array(["a", "no number"])},
        {"values": np.array(["x", "r", "y"])},
        {"values": np.array(3)},
        {"counts": None},
        {"counts": np.zeros((2, 8191), np.int64)},
        {"ends": np.array(["a", "b"])},
        {"numbers": np.zeros(2, np.int64)},
        {"numbers": np.full((2, 6), 0.5)},
        {"sums": np.array([["1", "2"]])},
    ],
)
def test_a_file_that_holds_something_else_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "ranges.npz"
    calibrated(pointwise(), numbers(50)).save(path)
    arrays: dict[str, Any] = {n: a for n, a in (read_npz(path) | changed).items() if a is not None}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"holds no calibration, or a damaged one; delete it"):
        Calibration.load(path)


def test_where_nothing_can_be_written_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be written"):
        Calibration(Key("a", "1"), {}).save(tmp_path / "none" / "ranges.npz")


def test_what_a_file_lacks_is_observed_and_added(tmp_path: Path) -> None:
    model, given, file = pointwise(), numbers(20), tmp_path / "kept.npz"
    usual = observe(model, ["x", "r", "y"], given)
    held = [recalled(file, model, names, given) for names in (["r"], ["y", "r"], ["x"], ["x", "r", "y"])]
    assert [(list(found), known) for found, known in held] == [
        (["r"], 0),
        (["y", "r"], 1),
        (["x"], 0),
        (["x", "r", "y"], 3),
    ]
    assert all(same(found[n], usual[n]) for found, _ in held for n in found)
    with pytest.raises(InputError, match="other data"):
        recalled(file, model, ["r"], numbers(21))
