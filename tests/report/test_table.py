"""Reports for people: each says what matters, and nothing in a model can break it."""

from __future__ import annotations

import io
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console, RenderableType

import graphopt
from graphopt import api
from graphopt.report import table, words
from graphopt.report.data import BenchReport, LeftOutReport, Metric, Report
from graphopt.report.plan import NoiseReport
from graphopt.run.bench import Timing
from graphopt.run.environment import Environment
from graphopt.run.finding import Finding
from graphopt.run.gpu import Gpu
from graphopt.run.placement import Node, Placement
from tests.end_to_end.support import net
from tests.report.test_html import PLAN

NASTY = "\x1b[31m[red]:smile:\u202e\n"
SPELLED = r"\x1b[31m[red]:smile:\u202e\n"


def text(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, markup=False, highlight=False, emoji=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def report() -> Report:
    return graphopt.optimize(net(), device="cpu", threads=1).report.at(Path("out.onnx"))


def test_optimize_shows_before_and_after(report: Report) -> None:
    lines = {line.split()[0]: line.split() for line in text(table.optimize(report)).splitlines() if line.split()}
    assert lines["nodes"] == ["nodes", "6", "4", "-33.3%"]
    assert lines["MACs"] == ["MACs", "11,664", "11,664"]
    assert lines["fold_batchnorm"] == ["fold_batchnorm", "2", "rounding"]
    assert lines["verified:"][2:5] == ["feeds", "on", "CPUExecutionProvider,"]
    assert lines["data:"][-1] == "synthetic"
    assert lines["written:"] == ["written:", "out.onnx"]


def test_optimize_says_what_was_left_out_and_why_nothing_was_done(report: Report) -> None:
    odd = replace(
        report, left_out=(LeftOutReport("noop", NASTY, "it was wrong"),), unchanged="no reason", notes=("n 1",)
    )
    shown = text(table.optimize(odd))
    assert f"left out: noop at {SPELLED} changed the result (it was wrong)" in shown
    assert "unchanged: no reason" in shown
    assert "note: n 1" in shown
    assert "fold_batchnorm" not in shown


def test_optimize_without_verification_says_so(report: Report) -> None:
    bare = replace(report, verification=None, data=None, timing=None, source=replace(report.source, macs=None))
    shown = text(table.optimize(bare))
    assert "unverified: nothing was run" in shown
    assert "MACs" not in shown
    assert "ms per run" not in shown


def test_metrics_are_shown_before_and_after(report: Report) -> None:
    assert report.verification is not None
    told = replace(
        report,
        verification=replace(
            report.verification, metrics={"accuracy": Metric(0.9961, 0.5), "agreement": Metric(1, 0.5)}
        ),
    )
    assert "accuracy 99.61% → 50.00%; agreement 50.00%\n" in text(table.optimize(told))


def compressed(report: Report, **changed: Any) -> Report:
    """A report of a model that something was cut from."""
    assert report.verification is not None
    assert report.data is not None
    noise = tuple(NoiseReport(level, 9, {"accuracy": Metric(0.9, 0.8 - level)}) for level in (0.0, 0.1, 0.2))
    return replace(
        report,
        plan=replace(PLAN, **changed),
        verification=replace(report.verification, metrics={"accuracy": Metric(0.9, 0.8)}, noise=noise),
        data=replace(report.data, synthetic=False),
    )


def test_of_a_compressed_model_it_is_told_what_was_verified_and_what_was_measured(report: Report) -> None:
    shown = text(table.optimize(compressed(report, max_drop={})))
    assert shown.startswith("accuracy falls by 10.00%\nwarning: that is more than one point; give --max-drop")
    assert "verified against the model as it was compressed, not the original: " in shown
    assert "\njudged by the metrics alone: accuracy 90.00% → 80.00%\n" in shown
    assert "with noise of 0.1, 0.2 of the inputs' deviation: accuracy 90.00% → 70.00%, 90.00% → 60.00%\n" in shown
    assert "learned from 1,234 samples, judged by 137 others" in shown
    assert "note: few samples" not in shown
    assert "note: few samples judge: 40, so that each of them is worth 2.5%" in text(
        table.optimize(compressed(report, judged=40))
    )


def test_a_drop_that_was_allowed_is_no_warning(report: Report) -> None:
    assert "warning: that is more" not in text(table.optimize(compressed(report)))


def test_of_a_plan_alone_nothing_is_said_to_be_lost_or_written(report: Report) -> None:
    shown = text(table.optimize(compressed(report, only=True)))
    assert "a plan alone: nothing was cut or written" in shown
    assert "to be cut" in shown
    for phrase in ("falls by", "judged by", "written:", "as it was compressed"):
        assert phrase not in shown


def test_a_metric_may_rise(report: Report) -> None:
    better = compressed(report)
    assert better.verification is not None
    found = replace(better.verification, metrics={"accuracy": Metric(0.9, 0.91)})
    assert text(table.optimize(replace(better, verification=found))).startswith("accuracy rises by 1.00%")


def test_without_scores_it_is_told_how_far_outputs_are_off(report: Report) -> None:
    plain = compressed(report, max_drop={})
    assert plain.verification is not None
    for decibels, told in ((20.0, "10.00%"), (6.0, "50.12%")):
        found = replace(plain.verification, metrics={"sqnr": Metric(inf, decibels)})
        shown = text(table.optimize(replace(plain, verification=found)))
        assert shown.startswith(f"the outputs are off by {told} of their size\n")
        assert ("warning: that is much; give --max-drop sqnr=" in shown) == (decibels < 20)


def test_labels_that_are_of_no_use_are_told(report: Report) -> None:
    assert report.data is not None
    odd = replace(report, data=replace(report.data, labels="float32 [4]"))
    assert "note: the labels (float32 [4]) were not used: accuracy needs" in text(table.optimize(odd))
    assert "labels" not in text(table.optimize(report))
    assert "labels" not in text(table.optimize(replace(odd, plan=replace(PLAN, only=True))))


def test_check_shows_each_output_and_the_verdict() -> None:
    good, bad = graphopt.check(net(), net(), threads=1), graphopt.check(net(), net(seed=1), threads=1)
    assert "ok" in text(table.check(good))
    assert "verified: " in text(table.check(good))
    assert "FAILED (the error exceeds the tolerance)" in text(table.check(bad))
    assert "NOT EQUAL: " in text(table.check(bad))


@pytest.mark.parametrize(("most", "told"), [(2.0, "passed: 3 lines"), (0.5, "NOT PASSED: max-bytes")])
def test_equal_values_are_not_all_that_counts(most: float, told: str) -> None:
    shown = text(table.check(graphopt.check(net(), net(), max_bytes=most, device="cpu", threads=1)))
    assert "verified: " in shown
    assert told in shown


def test_names_from_a_model_are_harmless() -> None:
    proto = net()
    proto.graph.output[0].name = NASTY
    proto.graph.node[-1].output[0] = NASTY
    proto.graph.node[0].name = NASTY
    for shown in (
        text(table.check(graphopt.check(proto, proto, threads=1))),
        text(table.inspect(graphopt.inspect(proto))),
    ):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert SPELLED in shown


def test_inspect_shows_one_model_below_the_other() -> None:
    shown = text(table.inspect(graphopt.inspect(net(1), net(2))))
    assert shown.index("3 nodes") < shown.index("6 nodes")
    assert shown.count("BatchNormalization") == 2
    assert "opsets: ai.onnx 21" in shown


def test_inspect_tells_each_reason_once() -> None:
    (one,) = graphopt.inspect(net())
    shown = text(
        table.inspect([replace(one, held={f"n{i}": "a reason" for i in range(200)} | {"m": "b"})], groups=True)
    )
    assert [" ".join(line.split()) for line in shown.splitlines() if "n0" in line] == ["a reason 200 n0, n1, n2, …"]
    assert "n3" not in shown


def test_inspect_counts_no_work_where_nothing_runs() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "a.b" : 1]> g (float[2] x) => (float[2] y) { y = a.b.Magic(x) }'
    )
    assert "unknown MACs" in text(table.inspect(graphopt.inspect(proto)))


def test_passes_shows_fields_and_rules() -> None:
    shown = text(table.passes(api.passes()))
    plain = " ".join(shown.split())
    assert "fold{max_bytes=16777216}" in shown
    assert "on cpu and cuda" in shown
    for step in api.passes():
        assert " ".join((*("measured" for _ in step.evidence[:1]), *step.evidence.split())) in plain
        assert all(rule in shown and summary in plain for rule, summary in step.rules.items())


def test_doctor_shows_what_to_do() -> None:
    shown = text(table.doctor([Finding("ok", "all is well"), Finding("error", NASTY, "pip install it")]))
    assert "all is well" in shown
    assert SPELLED in shown
    assert "pip install it" in shown


WHERE, PLACED = Environment("CPUExecutionProvider", "1.31.1"), Placement("CPUExecutionProvider", 3)
ONE = "0.500 ms per run, median of 9 runs of 4 rows on CPU\n"
TWO = "0.500 ms → 0.250 ms per run, median of 9 runs of 4 rows on CPU; ratio 0.500, 95 % between"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.4, 0.9, "faster"), (1.1, 1.2, "slower"), (0.9, 1.1, "no difference beyond doubt")]
)
def test_bench_shows_one_time_or_two_with_their_ratio(low: float, high: float, verdict: str) -> None:
    timing = BenchReport(0.5, 0.25, 0.5, low, high, 9, "CPU", 4, WHERE, PLACED, model="a.onnx", other=None)
    assert text(table.bench(timing)) == ONE
    assert text(table.bench(replace(timing, other="b.onnx"))) == f"{TWO} {low:.3f} and {high:.3f}: {verdict}\n"
    assert text(table.bench(replace(timing, sweep=(timing, timing)))) == 2 * ONE


H200 = Gpu("NVIDIA H200", "580.65", 141 << 30, (9, 0), (13, 0))
ON_CUDA = Environment("CUDAExecutionProvider", "1.31.1", "13.0", H200, tf32=False)


def test_bench_on_cuda_tells_gpu_placement_graphs_and_memory() -> None:
    placed = Placement("CUDAExecutionProvider", 9, (Node("Unique", "u", "CPUExecutionProvider"),))
    timing = Timing(0.4, 0.2, 0.5, 0.4, 0.6, 9, "CUDAExecutionProvider", clock="CUDA events")
    run = BenchReport(
        **vars(timing), rows=4, environment=ON_CUDA, placement=placed, memory=(3 << 30, 1 << 20), graphs=timing,
        model="a.onnx", other="b.onnx",
    )  # fmt: skip
    assert text(table.bench(run)).splitlines() == [
        (
            "0.400 ms → 0.200 ms per run, median of 9 runs of 4 rows on CUDAExecutionProvider, by CUDA events; "
            "ratio 0.500, 95 % between 0.400 and 0.600: faster"
        ),
        (
            "  CUDA: NVIDIA H200, driver 580.65, CUDA 13.0, onnxruntime 1.31.1, TF32 off; "
            "9 of 10 nodes run on CUDA, 1 on the CPU (Unique)"
        ),
        "  as a CUDA graph: 0.400 ms → 0.200 ms per run; ratio 0.500, 95 % between 0.400 and 0.600: faster",
        "  memory on the GPU: 3,072 MiB → 1 MiB",
    ]
    without = replace(run, graphs=None, ungraphed="it has an If", memory=())
    assert text(table.bench(without)).splitlines()[2:] == ["  not as a CUDA graph: it has an If"]


def test_verified_on_cuda_names_the_gpu(report: Report) -> None:
    found = report.verification
    assert found is not None
    assert words.proof(replace(found, provider=ON_CUDA.provider, environment=ON_CUDA, twice=True)).startswith(
        f"verified: {found.feeds} feeds on CUDA: NVIDIA H200, driver 580.65, CUDA 13.0, onnxruntime 1.31.1, TF32 off "
        "and on the CPU, largest error"
    )
    assert "NVIDIA" not in words.proof(found)


@pytest.mark.parametrize(("low", "high", "change"), [(0.4, 0.9, "-50.0%"), (1.1, 1.2, "-50.0%"), (0.9, 1.1, "≈")])
def test_a_change_of_time_is_told_only_beyond_doubt(low: float, high: float, change: str, report: Report) -> None:
    assert report.timing is not None
    told = replace(report, timing=replace(report.timing, ratio=0.5, low=low, high=high, rows=2))
    (line,) = (x for x in text(table.optimize(told)).splitlines() if x.strip().startswith("ms per run"))
    assert line.split()[5:] == [change, "(2", "rows)"]


def test_every_edit_is_told_on_request(report: Report) -> None:
    assert "edit:" not in text(table.optimize(report))
    shown = text(table.optimize(report, edits=True)).splitlines()
    assert [x.removeprefix("edit: ") for x in shown if x.startswith("edit: ")] == list(report.edits)
    assert "fold_batchnorm at bn0" in report.edits


def test_what_is_no_evidence_is_not_called_verified() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { a = Sub(x, x) y = Identity(a) }'
    )
    shown = text(table.optimize(graphopt.optimize(proto, threads=1).report))
    assert "output 'y': no evidence: " in shown
    assert "verified" not in shown
    assert " feeds on CPUExecutionProvider ran, but no output decides anything" in shown


def test_a_wide_tolerance_is_told(report: Report) -> None:
    assert report.verification is not None
    (output,) = report.verification.outputs
    wide = replace(output, max_abs=0.1, max_rel=0.01, tolerance=0.5)
    shown = text(table.optimize(replace(report, verification=replace(report.verification, outputs=(wide,)))))
    assert "output 'y': its tolerance is 5.0% of its largest value\n" in shown
    assert "largest value" not in text(table.optimize(report))


def test_a_check_of_what_is_no_evidence_is_not_ok() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { y = Sub(x, x) }'
    )
    shown = text(table.check(graphopt.check(proto, proto, threads=1)))
    assert " ok" not in shown
    assert "verified" not in shown


def test_how_much_of_the_data_was_compared_is_told(report: Report) -> None:
    assert report.data is not None
    part = replace(report.data, description="d.npz", synthetic=False, samples=5000, compared=92)
    assert "data: d.npz, compared on 92 of 5,000 samples\n" in text(table.optimize(replace(report, data=part)))
    assert "compared on" not in text(table.optimize(report))


def test_what_the_original_did_not_run_is_told(report: Report) -> None:
    assert report.verification is not None
    told = replace(report, verification=replace(report.verification, notes=("with optimizations: it fails",)))
    assert "note: the original does not run with optimizations: it fails\n" in text(table.optimize(told))


def test_a_failure_is_not_told_as_a_share_of_the_tolerance() -> None:
    shown = text(table.check(graphopt.check(net(), net(seed=1), threads=1)))
    assert " feeds on CPUExecutionProvider\n" in shown[shown.index("NOT EQUAL: ") :]
    assert "of the tolerance" not in shown
