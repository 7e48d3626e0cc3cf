"""What a closer look at a candidate found, in the same words for all views."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from graphopt.analysis.perturb import Disturbed
from graphopt.blame import Blame
from graphopt.counted import counted
from graphopt.pairwise import Layer
from graphopt.run.compare import OutputError

__all__ = ["blamed", "perturbed"]


def blamed(found: Blame) -> list[str]:
    """Where the difference begins, what to try, and which layers are off on their own."""
    lines = [found.text]
    if found.skip:
        keys = " ".join(f"--skip {quote(key)}" for key in found.skip)
        lines.append(f"to try: {keys}{found.made and f', so that {found.made} leaves that alone'}")
    if found.off > 1:
        told = f", the {len(found.worst)} worst" if found.off > len(found.worst) else ""
        lines.append(f"layers that are off on their own: {found.off:,} of {found.pairs:,}{told}:")
        lines += [f"  {_layer(layer)}" for layer in found.worst]
    looked = f"{counted(found.pairs, 'value')} on {counted(found.feeds, 'feed')}, {found.provider} {found.way}"
    return [*lines, f"looked at: {looked}"]


def perturbed(found: Sequence[Disturbed]) -> list[str]:
    """How much more the candidate loses than the reference, disturbance by disturbance."""
    if not found:
        return ["no input can be disturbed: there are only masks, and what is the same in all samples"]
    fragile = [d.name for d in found if d.fragile]
    verdict = f"the candidate is more fragile: {', '.join(fragile)}" if fragile else "the candidate is no more fragile"
    return [*(f"{d.name}: {_lost(d)}" for d in found), verdict]


def _layer(layer: Layer) -> str:
    """One line: its own error, and that of its value."""
    own, there = (_decibels(e) for e in (layer.own, layer.error))
    stands = ", ".join(key for key in layer.stands_for if key != layer.key)
    return f"{own} alone, {there} at its output: {layer.operator} {layer.key}{stands and f', in place of {stands}'}"


def _decibels(error: OutputError | None) -> str:
    if error is None or error.passed:
        return "equal"
    return "no number" if error.sqnr_db is None else f"{error.sqnr_db:.1f} dB"


def _lost(found: Disturbed) -> str:
    before, after = found.lost
    what = "of outputs" if found.kept is None else f"of {counted(found.samples, 'sample')}"
    extra = f"{found.extra:+.2%} [{found.low:+.2%}, {found.high:+.2%}]"
    return f"lost {before:.2%} → {after:.2%} {what}, {extra}{', MORE FRAGILE' if found.fragile else ''}"
