"""The lines that a policy may have: what each measures, when it fails, and what it is called.

Policies, options, `--help`, and the rules in reports are made of this table alone; nothing heavy is imported by it.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from graphopt.gate.untold import Untold

if TYPE_CHECKING:
    from graphopt.gate.measured import Measured

__all__ = ["RULES", "Finding", "Kind", "Line", "Row", "Rule"]

PROVIDERS: Final[Mapping[str, str]] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Kind:
    """What may stand behind a key."""

    words: str
    fits: Callable[[Any], bool]
    show: Callable[[Any], str] = str


@dataclass(frozen=True)
class Finding:
    """What was found of one line."""

    value: Any
    """As JSON holds it; None where there is no single one."""
    passed: bool
    text: str
    """In words, for people."""


@dataclass(frozen=True)
class Rule:
    """One line of a policy."""

    key: str
    kind: Kind
    help: str
    """What is asked for."""
    judge: Callable[[Measured, Line], Finding] | None
    """None of what is judged with the line `equal`. Raises `Untold`."""
    quality: bool = False
    """Whether it says how well the candidate does its job, so that it need not give the same, value by value."""


@dataclass(frozen=True)
class Line:
    """What a candidate must keep to."""

    rule: Rule
    limit: Any
    name: str = ""
    """The metric, where there may be several."""

    @property
    def key(self) -> str:
        """As it is written in a policy."""
        return f"{self.rule.key}.{self.name}" if self.name else self.rule.key


@dataclass(frozen=True)
class Row:
    """A line and what was found of it: a row of a table, a test case, a result."""

    key: str
    rule: str
    """The key of its rule; others than its own where there is one for each metric."""
    limit: Any
    value: Any
    passed: bool
    text: str

    def __bool__(self) -> bool:
        return self.passed

    @classmethod
    def of(cls, line: Line, measured: Measured) -> Row:
        """Judge a line."""
        assert line.rule.judge is not None  # noqa: S101 - no line is made of the others
        try:
            found = line.rule.judge(measured, line)
        except Untold as reason:
            found = Finding(None, passed=False, text=f"cannot be told: {reason}")
        return cls(line.key, line.rule.key, line.limit, found.value, found.passed, found.text)


# -- what may stand behind a key -------------------------------------------------------------------------------------


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an integer beyond all floats
        return False


_FLAG: Final = Kind("true or false", lambda v: isinstance(v, bool))
_RATIO: Final = Kind("a number above 0", lambda v: _number(v) and v > 0, lambda v: f"{v:.1%}")
_SHARE: Final = Kind("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1, lambda v: f"{v:.2%}")
_COSINE: Final = Kind("a number from -1 to 1", lambda v: _number(v) and -1 <= v <= 1, lambda v: f"{v:.6g}")
_AMOUNT: Final = Kind("a number of at least 0", lambda v: _number(v) and v >= 0, lambda v: f"{v:.4g}")
_DECIBELS: Final = Kind("a number of decibels", _number, lambda v: f"{v:.1f} dB")
_COUNT: Final = Kind("a whole number of at least 0", lambda v: isinstance(v, int) and _number(v) and v >= 0)
_TEXT: Final = Kind("text", lambda v: isinstance(v, str) and bool(v))
_TEXTS: Final = Kind("a list of text", lambda v: isinstance(v, list | tuple) and all(isinstance(w, str) for w in v))
_PROVIDER: Final = Kind(
    f"{' or '.join(map(repr, PROVIDERS))}, or onnxruntime's name of a provider",
    lambda v: isinstance(v, str) and (v in PROVIDERS or v.endswith("ExecutionProvider")),
)
_VERSION: Final = Kind('a version as text, such as "1.16"', lambda v: isinstance(v, str) and _parts(v) != ())
_DROPS: Final = Kind("a table of metrics, such as {accuracy = 0.01}", lambda v: isinstance(v, Mapping) and bool(v))


def _parts(version: str) -> tuple[int, ...]:
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?", version)
    return (int(found[1]), int(found[2])) if found else ()


# -- how lines are judged --------------------------------------------------------------------------------------------

Read = Callable[["Measured"], float]
Judge = Callable[["Measured", Line], Finding]


def _most(read: Read, what: str) -> Judge:
    """At most so much."""
    return lambda m, line: _limited(read(m), line, what, most=True)


def _least(read: Read, what: str) -> Judge:
    """At least so much."""
    return lambda m, line: _limited(read(m), line, what, most=False)


def _limited(value: float, line: Line, what: str, *, most: bool) -> Finding:
    show, word = line.rule.kind.show, "at most" if most else "at least"
    passed = value <= line.limit if most else value >= line.limit  # false of what is no number
    return Finding(value, passed, f"{what} {show(value)}, {word} {show(line.limit)}")


def _worst(read: Callable[[Any], float], what: str, *, most: bool) -> Judge:
    """Of all outputs of floats, the one that is furthest off."""

    def judge(m: Measured, line: Line) -> Finding:
        pick = max if most else min
        worst = pick(m.distances, key=read)
        found = _limited(read(worst), line, what, most=most)
        return Finding(found.value, found.passed, f"{found.text} (output {worst.name!r})")

    return judge


def _interface(m: Measured, _: Line) -> Finding:
    differences = m.comparison.differences
    return Finding(None, not differences, "; ".join(differences) or "the same names, types and shapes")


def _equal(m: Measured, _: Line) -> Finding:
    found = m.comparison
    wrong = [str(o) for o in found.outputs if not o]
    compared = bool(found.outputs) or not found.differences
    share = max((o.share for o in found.outputs), default=0.0)
    text = "; ".join(wrong) or ("within the tolerance" if compared else "nothing could be compared")
    return Finding(share, not wrong and compared, text)


def _synthetic(m: Measured, line: Line) -> Finding:
    if not m.synthetic:
        return Finding(False, passed=True, text="the data is real")
    text = "the data is made up" + (", which is allowed" if line.limit else ": give --data, or allow synthetic")
    return Finding(True, line.limit, text)


def _drop(m: Measured, line: Line) -> Finding:
    before, after = m.metric(line.name)
    if line.name == "sqnr":  # a level, not a fall
        return Finding(after, after >= line.limit, f"{after:.1f} dB, at least {line.limit:g} dB")
    lost = before - after
    fall = f"{'falls' if lost > 0 else 'rises'} by {abs(lost):.4g}" if lost else "stays"
    return Finding(lost, lost <= line.limit, f"{fall}, from {before:.4g} to {after:.4g}; at most {line.limit:g}")


def _agreement(m: Measured, line: Line) -> Finding:
    share, low, high, count = m.agreement
    text = f"{share:.2%} of {count:,} samples agree, {low:.2%} to {high:.2%} of data like this (95 % confidence)"
    return Finding(low, low >= line.limit, f"{text}; at least {line.limit:.2%}")


def _latency(m: Measured, line: Line) -> Finding:
    t = m.timing
    text = f"{t.ratio:.3f} of the time, 95 % between {t.low:.3f} and {t.high:.3f}; at most {line.limit:g}"
    return Finding(t.high, t.high <= line.limit, text)


def _allowed(read: Callable[[Measured], Mapping[str, int]], what: str) -> Judge:
    """None but these."""

    def judge(m: Measured, line: Line) -> Finding:
        others = sorted(n for n in read(m) if n not in line.limit)
        text = f"{what} that may not be: {', '.join(others)}" if others else f"no other {what}"
        return Finding(others, not others, text)

    return judge


def _runtime(m: Measured, line: Line) -> Finding:
    oldest = m.oldest_runtime
    passed = _parts(oldest) <= _parts(line.limit)
    return Finding(oldest, passed, f"loads from onnxruntime {oldest} on; {line.limit} is to load it")


def _provider(m: Measured, line: Line) -> Finding:
    wanted = PROVIDERS.get(line.limit, line.limit)
    found, placement, reason = m.placed
    why = "" if found == wanted else f", not {wanted} ({reason})"
    return Finding(found, found == wanted, f"runs on {found}{why}: {placement}")


def _elsewhere(m: Measured, line: Line) -> Finding:
    _, placement, _ = m.placed
    count = len(placement.elsewhere)
    return Finding(count, count <= line.limit, f"{placement}; at most {line.limit} elsewhere")


def _source(m: Measured, _: Line) -> Finding:
    made, given = m.provenance("source_sha256"), m.reference_sha256
    text = "made from the reference" if made == given else f"made from {made[:12]}…, the reference is {given[:12]}…"
    return Finding(made, made == given, text)


def _recipe(m: Measured, line: Line) -> Finding:
    same = m.provenance("recipe") == m.recipe(line.limit)
    return Finding(None, same, f"made by {'' if same else 'another recipe than '}{line.limit}")


def _verified(m: Measured, _: Line) -> Finding:
    verdict = m.provenance("verdict")
    return Finding(verdict, verdict.startswith("verified"), f"its maker says: {verdict}")


RULES: Final[Mapping[str, Rule]] = {
    rule.key: rule
    for rule in (
        Rule("interface", _FLAG, "Inputs and outputs have the reference's names, types and shapes.", _interface),
        Rule("equal", _FLAG, "Every output is the reference's, value by value, within the tolerance.", _equal),
        Rule("atol", _AMOUNT, "Allowed absolute difference, instead of the derived one.", None),
        Rule("rtol", _AMOUNT, "Allowed relative difference, instead of the derived one.", None),
        Rule("synthetic", _FLAG, "Whether data that is made up will do.", _synthetic),
        Rule("max-drop", _DROPS, "How far metrics may fall; of sqnr, its least value.", _drop, quality=True),
        Rule("min-agreement", _SHARE, "Least share of data whose largest score is the reference's.", _agreement, True),
        Rule(
            "min-sqnr", _DECIBELS, "Least signal to noise of every output of floats.",
            _worst(lambda d: d.sqnr_db, "signal to noise", most=False), quality=True,
        ),
        Rule(
            "min-cosine", _COSINE, "Least cosine of every output of floats with the reference's.",
            _worst(lambda d: d.cosine, "cosine", most=False), quality=True,
        ),
        Rule(
            "max-error", _AMOUNT, "Largest absolute error of outputs of floats.",
            _worst(lambda d: d.max_abs, "largest error", most=True), quality=True,
        ),
        Rule(
            "max-relative-error", _AMOUNT, "Largest error of outputs of floats, relative to their largest value.",
            _worst(lambda d: d.max_rel, "largest relative error", most=True), quality=True,
        ),
        Rule("max-latency", _RATIO, "Largest share of the reference's time, with 95 % confidence.", _latency),
        Rule(
            "max-bytes", _RATIO, "Largest share of the reference's bytes.",
            _most(lambda m: m.ratio("bytes"), "bytes:"),
        ),
        Rule(
            "max-params", _RATIO, "Largest share of the reference's parameters.",
            _most(lambda m: m.ratio("params"), "parameters:"),
        ),
        Rule(
            "max-macs", _RATIO, "Largest share of the reference's multiply-accumulates.",
            _most(lambda m: m.ratio("macs"), "multiply-accumulates:"),
        ),
        Rule("max-opset", _COUNT, "Newest opset of standard ONNX.", _most(lambda m: m.opset, "opset")),
        Rule(
            "operators", _TEXTS, "The only operators that there may be, as `inspect` names them.",
            _allowed(lambda m: m.operators, "operators"),
        ),
        Rule(
            "domains", _TEXTS, "The only domains of operators that there may be; standard ONNX is ai.onnx.",
            _allowed(lambda m: m.domains, "domains"),
        ),
        Rule("onnxruntime", _VERSION, "The oldest onnxruntime that must load it.", _runtime),
        Rule("provider", _PROVIDER, "Where it must really run, on this machine.", _provider),
        Rule("max-elsewhere", _COUNT, "Most nodes that run elsewhere than on the provider.", _elsewhere),
        Rule("source", _FLAG, "It says that it was made from the reference.", _source),
        Rule("recipe", _TEXT, "It says that it was made by the recipe in this file.", _recipe),
        Rule("verified", _FLAG, "It says that it was verified when it was made.", _verified),
    )
}  # fmt: skip
"""By key, in the order in which they are judged and shown."""
