"""Histograms of what flows through a model: made in one stream over samples, kept in a file, merged across shards."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnx_ir as ir

from graphopt.analysis.histogram import SIDE, Array, Histogram
from graphopt.analysis.inside import Inside, Tap
from graphopt.analysis.samples import identity
from graphopt.analysis.segments import Samples, batches, first
from graphopt.counted import counted
from graphopt.errors import InputError, UsageError
from graphopt.graph.carry import Carried
from graphopt.graph.external import Outside
from graphopt.graph.save import runnable, write_bytes
from graphopt.run.data import add_digest
from graphopt.run.files import read_npz
from graphopt.run.machine import HERE, Machine
from graphopt.run.session import Feed, Held

__all__ = ["Calibration", "Key", "key_of", "observe", "recalled"]

_BATCH: Final = 32
"""Samples of one run, at most."""
_HELD: Final = 1 << 25
"""Bytes of the values of one run, if one sample takes no more: larger ones are not faster, as caches are small."""
_COPIES: Final = 2
"""Of these values, in the runtime and out of it."""
_KEY: Final = "calibration1"
"""Where in a file its key is; another number stands for another format."""


def observe(model: ir.Model, values: Iterable[str], samples: Samples, machine: Machine = HERE) -> dict[str, Histogram]:
    """Histograms of some values of the main graph, over all samples.

    How samples are cut into runs changes nothing but the runtime's rounding. What does not grow with the number of
    samples in a run is the same for all of them, and counts once for each; else samples lie along the axis that grows,
    or along the first one where the model fixes how many it takes at once.

    Args:
        model: is not changed.
        values: names; inputs may be among them.
        samples: what is fed.
        machine: where to run. The values of one run may take its memory; there are as many passes over the samples as
            that takes.

    Raises:
        UsageError: a name is none of an input or of what a node of the main graph makes.
        InputError: there are no samples, the model does not run on them, or a value is no tensor of numbers.
    """
    wanted = list(dict.fromkeys(values))
    known = {str(v.name) for v in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
    if unknown := [n for n in wanted if n not in known]:
        raise UsageError(f"the main graph has no value {unknown[0]!r} to observe")
    feeds, counts = batches(model, samples, 1)
    if not feeds:
        raise InputError("there are no samples to calibrate on")
    largest = max(range(len(feeds)), key=lambda i: _bytes(feeds[i].values()))
    feed, few = first(model, samples, feeds[largest], counts[largest])
    every = Tap(model, wanted, machine)
    found = every(feed)
    shapes = {n: _tensor(found, n).shape for n in wanted}
    sizes = {n: found[n].nbytes // few for n in wanted}
    del found
    made, inside = {n: Histogram() for n in wanted}, Inside(machine)
    for now in _passes(sizes, machine.memory // _COPIES):
        size = max(min(_HELD // max(sum(sizes[n] for n in now), 1), _BATCH), 1)
        feeds, counts = batches(model, samples, size)
        text = f"observing {now[0]}" + f", and {counted(len(now) - 1, 'other')}" * (len(now) > 1)
        run = every if len(now) == len(wanted) else Tap(model, now, machine)
        for feed, count in machine.track(list(zip(feeds, counts, strict=True)), text):
            if run.remote:
                held = run.held(feed)
                for name in now:
                    _count(made[name], held.pop(name), count, shapes[name], few, inside)
                continue
            results = dict(run(feed))
            for name in now:
                value = _tensor(results, name)
                dims, times = _by_sample(value.shape, count, shapes[name], few)
                made[name].add(_parts(value, dims), dims[1], times)
                del results[name], value
    return made


def _tensor(found: Mapping[str, Any], name: str) -> Array:
    value = found.get(name)
    if not isinstance(value, np.ndarray) or value.dtype == object:
        raise InputError(f"{name!r} is no tensor of numbers, so it has no range; leave it out")
    return value


def _bytes(values: Iterable[Any]) -> int:
    return sum(v.nbytes for v in values if isinstance(v, np.ndarray))


def _passes(sizes: Mapping[str, int], memory: int) -> Iterator[list[str]]:
    """As many values as fit into memory, time and again."""
    now = list[str]()
    for name, size in sizes.items():
        if now and sum(sizes[n] for n in now) + size > memory:
            yield now
            now = []
        now.append(name)
    if now:
        yield now


def _by_sample(value: Sequence[int], count: int, shape: Sequence[int], few: int) -> tuple[tuple[int, int, int], int]:
    """How samples lie in a value of `count` of them: (before, samples, behind), and how often each of them counts.

    Args:
        value: its shape in one run.
        count: samples in the run.
        shape: what it was with `few` samples.
        few: one, or `count` where it is always the same.
    """
    size = prod(value)
    whole = (1, 1, size)
    if count == few:
        return ((1, count, size // count), 1) if len(value) and not value[0] % count else (whole, 1)
    if tuple(value) == tuple(shape):
        return whole, count
    axis = next((i for i, (a, b) in enumerate(zip(shape, value, strict=False)) if a != b), 0)
    if tuple(value) != (*shape[:axis], count * shape[axis], *shape[axis + 1 :]):
        return whole, 1
    before = prod(value[:axis])
    return (before, count, size // max(before * count, 1)), 1


def _parts(value: Array, dims: tuple[int, int, int]) -> Array:
    """A value with its samples first."""
    return np.moveaxis(value.reshape(dims), 1, 0)


def _count(made: Histogram, value: Held, count: int, shape: Sequence[int], few: int, inside: Inside) -> None:
    """Count what one run computed where it is, unless it holds what is not finite."""
    dims, times = _by_sample(value.shape(), count, shape, few)
    ends = inside.ends(value, dims) if prod(dims) else ([], [])
    if ends is None:
        made.add(_parts(inside.read(value), dims), dims[1], times)
    elif ends[0]:
        made.take(*ends, lambda exponent: inside.counts(value, exponent, SIDE), times)


@dataclass(frozen=True)
class Key:
    """What statistics were made of."""

    graph: str
    """Digest of the model, weights included."""
    data: str
    """Sum of the digests of the samples: their order does not count, and shards can be added up."""

    def __add__(self, other: Key) -> Key:
        if self.graph != other.graph:
            raise InputError("statistics of different models cannot be merged; calibrate each model on its own")
        return Key(self.graph, f"{(int(self.data, 16) + int(other.data, 16)) % 2**256:064x}")


def key_of(model: ir.Model, samples: Samples) -> Key:
    """What statistics of this model over these samples are kept under."""
    content = runnable(model, Carried())
    digest = hashlib.sha256(content.content if isinstance(content, Outside) else content)
    for name, weight in sorted(content.weights.items() if isinstance(content, Outside) else ()):
        add_digest(digest, name, weight.array)
    if isinstance(samples, Mapping):
        count = min((len(v) for v in samples.values()), default=0)
        feeds: Iterable[Feed] = ({n: v[i : i + 1] for n, v in samples.items()} for i in range(count))
    else:
        feeds = samples
    return Key(digest.hexdigest(), f"{sum(map(identity, feeds)) % 2**256:064x}")


@dataclass(frozen=True)
class Calibration:
    """Statistics of one model, and of what they were made.

    Statistics of the same values over further samples can be added; it is as if all had been one.
    """

    key: Key
    histograms: Mapping[str, Histogram]

    def __add__(self, other: Calibration) -> Calibration:
        key = self.key + other.key
        if self.histograms.keys() != other.histograms.keys():
            raise InputError("statistics of different values cannot be merged; observe the same ones for each shard")
        return Calibration(key, {n: h + other.histograms[n] for n, h in self.histograms.items()})

    def save(self, path: Path) -> None:
        """Write all to an .npz file, whole or not at all.

        Raises:
            MachineError: it cannot be written.
        """
        told = [h.arrays() for h in self.histograms.values()]
        arrays: dict[str, Any] = {n: np.stack([t[n] for t in told]) for n in (told[0] if told else ())}
        arrays[_KEY] = np.array([self.key.graph, self.key.data])
        arrays["values"] = np.array(list(self.histograms), "U")
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        write_bytes(path, file.getvalue())

    @classmethod
    def load(cls, path: Path, expected: Key | None = None) -> Self:
        """What `save` wrote.

        Args:
            path: of the file.
            expected: what it must have been made of, if that counts.

        Raises:
            InputError: it cannot be read, is damaged, or was made of something else.
        """
        arrays = read_npz(path)
        try:
            graph, data = arrays.pop(_KEY).tolist()
            names = arrays.pop("values").tolist()
            key = Key(graph, f"{int(data, 16):064x}")
            found = {n: Histogram.of({k: a[i] for k, a in arrays.items()}) for i, n in enumerate(names)}
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise InputError(f"{path} holds no calibration, or a damaged one; delete it and calibrate again") from error
        if expected is not None and key != expected:
            what = "other data" if key.data != expected.data else "another model"  # ranges of channels depend on data
            raise InputError(f"{path} was calibrated with {what}; delete it, or name another file")
        return cls(key, found)


def recalled(
    path: Path, model: ir.Model, values: Iterable[str], samples: Samples, machine: Machine = HERE
) -> tuple[dict[str, Histogram], int]:
    """As `observe`, but what a file holds is taken from it, and what it lacks is added to it.

    Args:
        path: of a file that `Calibration.save` wrote, or that is to be.
        model: is not changed.
        values: names; inputs may be among them.
        samples: what is fed.
        machine: where to run.

    Returns:
        The histograms, and how many of them the file held.

    Raises:
        InputError: the file cannot be read, is damaged, or was made of another model or other data.
        MachineError: it cannot be written.
        UsageError: as `observe`.
    """
    wanted, key = list(dict.fromkeys(values)), key_of(model, samples)
    held = Calibration.load(path, key).histograms if path.exists() else {}
    missing = [n for n in wanted if n not in held]
    found = {**held, **(observe(model, missing, samples, machine) if missing else {})}
    if missing:
        Calibration(key, found).save(path)
    return {n: found[n] for n in wanted}, len(wanted) - len(missing)
