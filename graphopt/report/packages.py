"""What became of weights that were to be packed: the part of the report that `blocks` and `dynamic` add."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from graphopt.compress.integers.packing import Package
from graphopt.counted import counted, grouped
from graphopt.lossy import Lossy
from graphopt.spelling import spec

__all__ = ["PackageReport", "PackagesReport"]


@dataclass(frozen=True)
class PackageReport:
    """One product, or table."""

    key: str
    form: str
    """How it is written; where it stays as it was, why."""
    way: str
    """How its weights were rounded; empty where they were not."""
    weights: int
    before: int
    """Bytes."""
    after: int
    sqnr: float | None
    """Signal over error of its result on samples held back (of a table, of itself), in decibels; None without any."""

    @classmethod
    def of(cls, found: Package) -> PackageReport:
        """What a report keeps."""
        decibels = round(found.decibels, 3) if found.way and isfinite(found.decibels) else None
        return cls(found.key, found.form, found.way, found.weights, found.before, found.after, decibels)


@dataclass(frozen=True)
class PackagesReport:
    """How weights were packed, and what that brings."""

    form: str
    """As `--pass` takes it."""
    emitted: bool
    """Whether that is the result: not if it was slower."""
    packages: tuple[PackageReport, ...]
    ratio: float | None
    """The time over that of the same model on floats; None where it was not asked."""
    low: float | None
    """Its 95 % interval."""
    high: float | None
    pairs: int

    @classmethod
    def of(cls, found: Lossy) -> PackagesReport | None:
        """What a report keeps; None where nothing was to be packed."""
        if found.packages is None:
            return None
        made, timing = found.packages, found.packages.timing
        return cls(
            spec(made.form),
            made.emitted,
            tuple(PackageReport.of(p) for p in made.found.packages),
            None if timing is None else timing.ratio,
            None if timing is None else timing.low,
            None if timing is None else timing.high,
            0 if timing is None else timing.pairs,
        )

    @property
    def lines(self) -> list[str]:
        """What was packed, what that brings, and what was left."""
        done = [p for p in self.packages if p.way]
        before, after = (sum(getattr(p, name) for p in done) for name in ("before", "after"))
        number = f"{len(done):,} of {len(self.packages):,} products and tables"
        lines = [f"packed: {number}, from {before:,} bytes to {after:,} ({after / max(before, 1):.1%})"]
        if self.ratio is not None:
            pairs = counted(self.pairs, "pair")
            took = f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}] of the time on floats, {pairs}"
            lines.append(took if self.emitted else f"not faster than floats, so it stays on floats: {took}")
        left = {p.key: p.form for p in self.packages if not p.way}
        return [*lines, *(f"left as it is: {line}" for line in grouped(left))]
