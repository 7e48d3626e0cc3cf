"""What the views of a report for people say in the same words."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from math import inf

from graphopt.analysis.metrics import interval
from graphopt.compress.integers.round import BLIND
from graphopt.counted import counted, grouped
from graphopt.report.data import CheckReport, DataReport, Metric, Report, VerificationReport
from graphopt.report.half import HalfReport
from graphopt.report.integers import IntegersReport
from graphopt.report.plan import PlanReport
from graphopt.report.timing import RunReport, TimingReport
from graphopt.run.bench import Timing
from graphopt.run.compare import OutputError
from graphopt.run.runtime import CPU
from graphopt.run.stopwatch import HOST

__all__ = [
    "SHARES",
    "again",
    "both",
    "change",
    "costs",
    "data",
    "doubt",
    "first",
    "learned",
    "lost",
    "metric",
    "noise",
    "proof",
    "remarks",
    "rules",
    "run",
    "times",
    "unused",
    "value",
    "zeros",
]

SHARES = ("accuracy", "f1", "agreement")
"""Metrics that are parts of one."""
_MUCH = 0.01
"""Of a metric, what is worth a warning."""
_FAR = 0.1
"""Of outputs, how far off is worth a warning."""
_COMPARES = frozenset({"agreement", "sqnr", "cosine"})
"""Metrics of the result against the original."""
_FEW = 100
"""Samples that judge, below which the smallest step that they can tell is more than that."""
_COSTLY = 4
"""Products whose cost is explained on a terminal."""
_WIDE = 0.01
"""Share of an output's largest value above which a tolerance hides more than rounding."""


def costs(report: Report) -> list[tuple[str, int, int]]:
    """What is counted of both models, where it is known of both."""
    before, after = report.source, report.output
    counted = (
        ("nodes", before.nodes, after.nodes),
        ("parameters", before.params, after.params),
        ("MACs", before.macs, after.macs),
        ("bytes", before.bytes, after.bytes),
    )
    return [(label, old, new) for label, old, new in counted if old is not None and new is not None]


def again(report: Report) -> str:
    """The command that asks for the same, and puts it where this went."""
    written = report.output.name != "result" and not (report.plan and report.plan.only)
    return report.asked + (f" -o {shlex.quote(report.output.name)}" if written else "")


def remarks(report: Report) -> list[str]:
    """All that a reader must not miss."""
    lines = lost(report) + unused(report)
    lines += [f"unchanged: {report.unchanged}"] if report.unchanged else []
    lines += [f"left out: {x.rule} at {x.root} changed the result ({x.reason})" for x in report.left_out]
    lines += [f"note: {n}" for n in report.notes]
    if missing := max(report.source.unknown_macs, report.output.unknown_macs):
        lines.append(f"note: MACs leave out {counted(missing, 'node')}, whose shapes could not be told")
    return lines


def change(before: float, after: float) -> str:
    """The ratio, as a change in per cent."""
    return "" if not before or before == after else f"{(after - before) / before:+.1%}"


def times(timing: TimingReport) -> tuple[str, str, str]:
    """Both medians, and their ratio where the difference is beyond doubt."""
    ratio = f"{timing.ratio - 1:+.1%}" if timing.faster or timing.slower else "≈"
    rows = "" if timing.rows is None else f" ({counted(timing.rows, 'row')})"
    return f"{timing.original_ms:.3f}", f"{timing.candidate_ms:.3f}", ratio + rows


def rules(report: Report) -> list[tuple[str, int, str]]:
    """What was rewritten, how often and how exactly; the most frequent first."""
    made = Counter({(r, s.exactness): n for s in report.steps for r, n in s.edits.items()})
    return [(rule, count, exactness.lower()) for (rule, exactness), count in made.most_common() if not report.unchanged]


def lost(report: Report) -> list[str]:
    """What a compression costs, whether that is much, and how far it can be believed."""
    plan, found, used = report.plan, report.verification, report.data
    if plan is None or not report.cut or found is None:
        return []
    told = {name: v.before - v.after for name, v in found.metrics.items() if name in SHARES}
    lines = [f"{name} {'rises' if fall < 0 else 'falls'} by {abs(fall):.2%}" for name, fall in told.items()]
    if "agreement" in told and plan.judged:
        low, high = interval(found.metrics["agreement"].after, plan.judged)
        lines.append(
            f"on data like this, {low:.2%} to {high:.2%} agree (95 % confidence, {counted(plan.judged, 'sample')})"
        )
    if not told and "sqnr" in found.metrics:
        off = 10 ** (-found.metrics["sqnr"].after / 20)
        lines.append(f"the outputs are off by {off:.2%} of their size")
        if off > _FAR and not plan.max_drop and not (used and used.synthetic):
            lines.append("warning: that is much; give --max-drop sqnr=DECIBELS to say how little it must be")
    if any(fall > _MUCH for fall in told.values()) and not plan.max_drop and not (used and used.synthetic):
        lines.append("warning: that is more than one point; give --max-drop to say how much may be lost")
    if used and used.synthetic:
        lines.append("warning: the data is synthetic, so what is learned and measured says little: give --data")
    elif plan.judged < _FEW:
        lines.append(f"note: few samples judge: {plan.judged:,}, so that each of them is worth {1 / plan.judged:.1%}")
    return lines


def unused(report: Report | CheckReport) -> list[str]:
    """That labels were of no use, if so."""
    used, found = report.data, report.verification
    if used is None or used.labels is None or found is None or not found or "accuracy" in found.metrics:
        return []
    if isinstance(report, Report) and report.plan is not None and report.plan.only:  # nothing was judged
        return []
    needs = "an output of scores and, for each sample, the number of its class (from 0 on) or a row with a one there"
    return [f"note: the labels ({used.labels}) were not used: accuracy needs {needs}"]


def integers(found: IntegersReport) -> list[str]:
    """What was quantized, what that brings, and what was left."""
    done = [p for p in found.products if p.way]
    lines = [f"quantized: {len(done):,} of {counted(len(found.products), 'product')}, weights of {found.bits} bits"]
    if not done:
        lines.append("no product does well enough on integers, so all stays on floats")
    elif found.ratio is not None:
        pairs = counted(found.pairs, "pair")
        took = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] of the time on floats, {pairs}"
        lines.append(took if found.emitted else f"slower on integers, so it stays on floats: {took}")
    elif not found.kernels:
        away = "the target is not the runtime at hand, whose milliseconds say nothing of it"
        lines.append(f"placed by rule, not measured: {away}")
    if found.evened:
        what = f"channels of {counted(len(found.evened), 'group')} were brought to one range"
        lines.append(f"{what} before they share a quantizer: {found.evened_gain:+.2f} dB at the outputs")
    costly = sorted((p for p in found.products if p.done), key=lambda p: -(p.gain or 0))
    told = {p.key for p in costly[:_COSTLY]}
    for product in costly[:_COSTLY]:
        why = product.cause or "for no reason that is known here"
        lines.append(f"costs {product.gain or 0:.2f} dB: {product.key}: {why} ({product.done})")
    gains = {p.key: p.gain for p in found.products}
    for key in (k for k in found.floats if k not in told):
        gain = gains.get(key)
        lines.append(f"on floats: {key}" + (f", {gain:+.2f} dB alone" if gain is not None else ""))
    if found.slower is not None:
        lines.append(f"what is on floats takes {found.slower - 1:+.1%} of the time with everything on integers")
    if blind := sum(p.way == BLIND for p in done):
        what = counted(blind, "product")
        lines.append(f"warning: rounded without data: {what}; leave out samples that make values infinite")
    reasons = {p.key: p.reason for p in done if p.integer is False}
    lines += [f"not on integers: {line}" for line in grouped(reasons)]
    return lines


def learned(plan: PlanReport) -> str:
    """How many samples it was learned from, and judged by."""
    judged = "" if plan.only else f", judged by {counted(plan.judged, 'other')}"
    return f"learned from {counted(plan.calibrated, 'sample')}{judged}"


def forms(plan: PlanReport) -> str:
    """How products are written."""
    ways = Counter(form.form for form in plan.forms).most_common()
    told = ", ".join(f"{counted(count, 'product')} as {way}" for way, count in ways)
    return f"{'to be written' if plan.only else 'written'} in another way: {told}"


def half(found: HalfReport) -> list[str]:
    """What computes in half precision, and what does not, why."""
    saved = f"; constants take {found.after / found.before:.1%} of their bytes" if found.after < found.before else ""
    between = f"with {counted(found.casts, 'Cast')} in between"
    lines = [f"{found.type}: {counted(found.nodes, 'node')}, on floats {len(found.floats):,}, {between}{saved}"]
    if not found.nodes:
        lines = [f"{found.type}: no node is worth it, so all stays on floats"]
    lines += [f"inputs and outputs in {found.type}: {', '.join(found.ends)}"] if found.ends else []
    lines += [f"on floats: {line}" for line in grouped(found.floats)]
    return lines


def zeros(plan: PlanReport) -> str:
    """How many weights became zero, and what for."""
    count, every = plan.zeros
    if not count:
        return ""
    mine = sum(s.zeros > 0 for s in plan.sparse)
    dense = f", dense: {counted(len(plan.sparse) - mine, 'other')}" if mine < len(plan.sparse) else ""
    where = f"in {counted(mine, 'product')}{dense}; the file packs better, onnxruntime takes as long"
    return f"zeros: {count:,} of {counted(every, 'weight')} ({count / every:.1%}), {where}"


def metric(name: str, values: Metric) -> str:
    """Before and after; what compares the two has no before."""
    return value(name, values.after) if name in _COMPARES else both(name, values)


def both(name: str, values: Metric) -> str:
    """Before and after."""
    return f"{value(name, values.before)} → {value(name, values.after)}"


def value(name: str, amount: float) -> str:
    """Of a metric, with its unit."""
    match name:
        case "sqnr":
            return "∞" if amount == inf else f"{amount:.1f} dB"
        case "cosine":
            return f"{amount:.4f}"
        case _:
            return f"{amount:.2%}"


def first(names: Iterable[str]) -> str | None:
    """The metric that says most to people."""
    known = list(names)
    return next((n for n in (*SHARES, *known) if n in known), None)


def noise(found: VerificationReport) -> list[str]:
    """How well both models do on noisy inputs, in one line."""
    name = first(found.noise[0].metrics) if found.noise else None
    some = [n for n in found.noise[1:] if name in n.metrics]
    if name is None or not some:
        return []
    told = ", ".join(both(name, n.metrics[name]) for n in some)
    return [f"with noise of {', '.join(f'{n.level:g}' for n in some)} of the inputs' deviation: {name} {told}"]


def proof(found: VerificationReport, *, cut: bool = False) -> str:
    """What "verified" means here; with `cut`, what the result is held against has lost something already."""
    device = found.provider if found.provider == CPU else str(found.environment)
    where = f"{counted(found.feeds, 'feed')} on {device}{' and on the CPU' if found.twice else ''}"
    if not found:
        return f"NOT EQUAL: {where}"
    if not found.evidence:
        return f"no evidence: {where} ran, but no output decides anything; give other data"
    worst = f"{max((o.share for o in found.outputs), default=0.0):.0%} of the tolerance"
    if cut:
        return f"verified against the model as it was compressed, not the original: {where}, largest error {worst}"
    return f"verified: {where}, largest error {worst}"


def run(found: RunReport, *, pair: bool) -> list[str]:
    """What one run takes; of a pair both, and their ratio."""
    rows = "" if found.rows is None else f" of {counted(found.rows, 'row')}"
    clock = "" if found.clock == HOST.name else f", by {found.clock}"
    lines = [f"{_times(found, pair=pair)}, median of {counted(found.pairs, 'run')}{rows} on {found.provider}{clock}"]
    if pair:
        lines[0] += f"; {_ratio(found)}"
    if found.environment.provider != CPU:
        lines.append(f"  {found.environment}; {found.placement}")
    if found.graphs:
        ratio = f"; {_ratio(found.graphs)}" if pair else ""
        lines.append(f"  as a CUDA graph: {_times(found.graphs, pair=pair)}{ratio}")
    if found.ungraphed:
        lines.append(f"  not as a CUDA graph: {found.ungraphed}")
    if found.memory:
        lines.append(f"  memory on the GPU: {' → '.join(f'{m / 2**20:,.0f} MiB' for m in found.memory)}")
    return lines


def _times(found: Timing, *, pair: bool) -> str:
    return f"{found.original_ms:.3f} ms" + (f" → {found.candidate_ms:.3f} ms" if pair else "") + " per run"


def _ratio(found: Timing) -> str:
    verdict = "faster" if found.faster else "slower" if found.slower else "no difference beyond doubt"
    return f"ratio {found.ratio:.3f}, 95 % between {found.low:.3f} and {found.high:.3f}: {verdict}"


def doubt(output: OutputError) -> str:
    """Why that an output passed says little; the verdict on one that failed is not in doubt."""
    if not output or output.note:
        return output.note
    scale = output.max_abs / output.max_rel if output.max_rel else 0.0
    wide = scale and output.tolerance / scale > _WIDE
    return f"its tolerance is {output.tolerance / scale:.1%} of its largest value" if wide else ""


def data(found: DataReport) -> str:
    """Where the feeds come from; whether values are real, and all of them were used."""
    part = (
        ""
        if found.compared == found.samples
        else f", compared on {found.compared:,} of {counted(found.samples, 'sample')}"
    )
    return f"data: {found.description}{part}" + (", synthetic" if found.synthetic else "")
