"""Opens what the user gives as data: files, folders, functions, or arrays in memory.

A feed is what one run takes. Where all inputs share a symbolic first axis, its rows are the samples, and feeds are cut
and stacked at will; otherwise one feed is one sample.

    FILE.npz                 one array per input. An array of the input's rank has samples along axis 0; one with an
                             axis more holds one feed per index. `labels` (`__labels__` where an input has that name)
    FOLDER                   of such files, or of ONNX test data (`test_data_set_*/input_*.pb`)
    FILE.py:NAME, MODULE:NAME  a function without arguments that yields feeds or (feed, labels)
    random:N                 N generated feeds; the result is marked as synthetic
    in Python                a dict of arrays as in an .npz file, an iterable of feeds or of (feed, labels), a function
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.counted import counted
from graphopt.errors import InputError, UsageError
from graphopt.run.files import read_npz, read_pb
from graphopt.run.session import Feed, Port
from graphopt.run.usercode import user_code

__all__ = ["Data", "Pair", "Survey", "add_digest", "function", "open_data", "rows_are_samples", "rows_of"]

_DIGITS = 9
"""Of a number of feeds."""

Pair = tuple[Feed, np.ndarray | None]
"""A feed and the labels of its samples."""


@dataclass(frozen=True)
class Survey:
    """What one reading of all data tells.

    `sha256` is that of all samples and labels in order; how rows are cut into feeds does not matter. `kept` are some of
    the samples, spread evenly. `labels` says what the label of a sample is, if there are any: "int64", "float32 [10]".
    """

    samples: int
    sha256: str
    kept: tuple[Feed, ...]
    labels: str | None


class Data:
    """Feeds that can be iterated again and again.

    Args:
        read: gives the feeds and labels from the beginning, each time it is called.
        inputs: the model's inputs, which every feed is checked against.
        name: what to call the source in messages.
        synthetic: the values are made up.
    """

    def __init__(
        self, read: Callable[[], Iterable[Pair]], inputs: Sequence[Port], *, name: str, synthetic: bool = False
    ) -> None:
        self._read = read
        self._inputs = {p.name: p for p in inputs}
        self.name = name
        self.synthetic = synthetic
        self.rows = rows_are_samples(inputs)

    def pairs(self) -> Iterator[Pair]:
        """The feeds and labels as the source gives them, each checked.

        Raises:
            InputError: a feed does not fit the model's inputs, or its labels do not fit the feed.
        """
        labelled: bool | None = None
        for feed, labels in self._read():
            checked = self._checked(feed)
            if labelled not in {None, labels is not None}:
                raise InputError(f"{self.name} gives labels with some feeds and not with others: give all or none")
            labelled = labels is not None
            if labels is not None and self.rows and (count := len(np.atleast_1d(labels))) != rows_of(checked):
                raise InputError(f"{self.name} has {counted(count, 'label')} for {counted(rows_of(checked), 'sample')}")
            yield checked, np.atleast_1d(labels) if labels is not None and self.rows else labels

    def batches(self, size: int) -> Iterator[Pair]:
        """Feeds of `size` rows, the last one of fewer; where rows are no samples, the feeds as they are.

        A batch also ends where the rows change their shape.
        """
        if not self.rows:
            yield from self.pairs()
            return
        parts: list[Pair] = []
        held = 0
        for feed, labels in self.pairs():
            if parts and not _stackable(parts[0], (feed, labels)):
                yield _stack(parts)
                parts, held = [], 0
            start, end = 0, rows_of(feed)
            while start < end:
                stop = min(end, start + size - held)
                parts.append(_cut(feed, labels, start, stop))
                held += stop - start
                start = stop
                if held == size:
                    yield _stack(parts)
                    parts, held = [], 0
        if parts:
            yield _stack(parts)

    def survey(self, most: int | Callable[[Feed], int]) -> Survey:
        """Read all data once, and keep at most that many samples; how many, the first one may tell."""
        digest = hashlib.sha256()
        kept: list[Feed] = []
        count, stride, told, limit = 0, 1, None, 0
        for feed, labels in self.pairs():
            told = told or _told(labels, rows=self.rows)
            cuts = (_cut(feed, labels, i, i + 1) for i in range(rows_of(feed))) if self.rows else [(feed, labels)]
            for sample, label in cuts:
                limit = limit or (most if isinstance(most, int) else most(sample))
                for name in sorted(sample):
                    add_digest(digest, name, sample[name])
                add_digest(digest, "", label)
                if count % stride == 0:
                    kept.append({n: np.array(v) for n, v in sample.items()} if self.rows else sample)
                if len(kept) == 2 * limit:
                    del kept[1::2]
                    stride *= 2
                count += 1
        chosen = np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(int).tolist()
        return Survey(count, digest.hexdigest(), tuple(kept[i] for i in chosen), told)

    def _checked(self, feed: Any) -> Feed:
        """The feed with arrays in native byte order, once it is known to fit."""
        if not isinstance(feed, Mapping):
            raise InputError(f"{self.name} gives a {type(feed).__name__} where a dict of input name -> array is needed")
        names = list(self._inputs)
        if missing := [n for n, p in self._inputs.items() if n not in feed and p.kind != "optional"]:
            raise InputError(f"{self.name} has nothing for the input {missing[0]!r}; it has: {_listed(feed)}")
        if extra := [str(n) for n in feed if n not in self._inputs]:
            raise InputError(
                f"{self.name} has {extra[0]!r}, which is no input of the model; they are: {_listed(names)}"
            )
        fitted = {n: _fitted(self._inputs[n], value, self.name) for n, value in feed.items()}
        if self.rows and len({len(v) for v in fitted.values()}) > 1:
            lengths = ", ".join(f"{n!r} has {len(v)}" for n, v in fitted.items())
            raise InputError(f"{self.name} gives the inputs different numbers of samples: {lengths}")
        return fitted


def open_data(source: Any, inputs: Sequence[Port], *, draw: Callable[[int], Feed] | None = None) -> Data:
    """Opens data for a model with these inputs. What is wrong with a feed shows when it is read.

    Args:
        source: as listed at the top of this module.
        inputs: the model's inputs.
        draw: makes feed number n, for `random:N`.

    Raises:
        InputError: a file cannot be read, is unsafe, or does not fit the inputs.
        UsageError: the source is of no known form.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, str | Path):
        return _open_text(str(source), inputs, draw)
    if isinstance(source, Mapping):
        return Data(partial(_unpacked, dict(source), inputs, "the data"), inputs, name="the data")
    if callable(source):
        return Data(partial(_called, source, "the data function"), inputs, name="the data function")
    if isinstance(source, Iterable):
        again = list(source) if iter(source) is source else source
        return Data(partial(_pairs, again, "the data"), inputs, name="the data")
    raise UsageError(f"data cannot be a {type(source).__name__}: give a path, arrays by input name, or feeds")


def rows_are_samples(inputs: Sequence[Port]) -> bool:
    """Whether all inputs share a symbolic first axis. Unnamed axes are taken to be the same one."""
    firsts = {p.shape[0] if p.kind == "tensor" and p.shape else 0 for p in inputs}
    return len(firsts) == 1 and not isinstance(firsts.pop(), int)


def _open_text(text: str, inputs: Sequence[Port], draw: Callable[[int], Feed] | None) -> Data:
    try:
        return _open_path(text, inputs, draw)
    except (OSError, ValueError) as problem:  # names that are too long, or hold a zero character
        reason = (problem.strerror if isinstance(problem, OSError) else "") or "it is no name that a file can have"
        raise InputError(f"{text[:200]} cannot be read: {reason}") from None


def _open_path(text: str, inputs: Sequence[Port], draw: Callable[[int], Feed] | None) -> Data:
    path = Path(text)
    if path.is_dir():
        return Data(_folder(path, inputs), inputs, name=text)
    if path.suffix == ".npz":
        return Data(partial(_unpacked, read_npz(path), inputs, text), inputs, name=text)
    head, colon, tail = text.rpartition(":")
    if head == "random" and tail.isascii() and tail.isdecimal() and 0 < len(tail) <= _DIGITS and int(tail):
        if draw is None:
            raise UsageError(f"{text} needs a model for which feeds can be generated: give files instead")
        make = draw
        return Data(lambda: ((make(i), None) for i in range(int(tail))), inputs, name=text, synthetic=True)
    if colon and tail.isidentifier():
        return Data(partial(_called, function(head, tail), text), inputs, name=text)
    if path.exists():
        raise InputError(f"{text} is no data: give an .npz file, a folder or FILE.py:FUNCTION")
    raise InputError(f"{text} does not exist: give an .npz file, a folder, FILE.py:FUNCTION or random:N")


def _folder(path: Path, inputs: Sequence[Port]) -> Callable[[], Iterator[Pair]]:
    """Reader of a folder, file by file."""
    sets = sorted(p for p in path.glob("test_data_set_*") if p.is_dir())
    if not sets and any(path.glob("input_*.pb")):
        sets = [path]
    if sets:
        return lambda: ((_data_set(folder, inputs), None) for folder in sets)
    if files := sorted(path.glob("*.npz")):
        return lambda: (pair for file in files for pair in _unpacked(read_npz(file), inputs, str(file)))
    raise InputError(f"{path} holds neither .npz files nor test_data_set_* folders: give a folder that does")


def _data_set(folder: Path, inputs: Sequence[Port]) -> Feed:
    """The feed in an ONNX test data set: by the names in its files if they are those of the inputs, else by number."""
    files = [folder / f"input_{i}.pb" for i in range(len(inputs))]
    if (found := len(list(folder.glob("input_*.pb")))) != len(files):
        raise InputError(
            f"{folder} has {counted(found, 'input_*.pb file')}; the model has {counted(len(files), 'input')}"
        )
    read = [read_pb(f, sequence=p.kind == "sequence") for f, p in zip(files, inputs, strict=True)]
    names = [p.name for p in inputs]
    if sorted(name for name, _ in read) == sorted(names):
        return dict(read)
    return dict(zip(names, (value for _, value in read), strict=True))


def function(module: str, name: str) -> Callable[[], Any]:
    """The user's function; importing its module executes it, which is what the user asked for."""
    with user_code(f"{module} cannot be imported", InputError):
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"graphopt_user_{Path(module).stem}", module)
            assert spec is not None  # noqa: S101 - there is a loader for every name that ends in .py
            assert spec.loader is not None  # noqa: S101
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded  # dataclasses look their module up there
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
    function: Callable[[], Any] | None = getattr(loaded, name, None)
    if not callable(function):
        raise InputError(f"{module} has no function {name!r}")
    return function


def _called(function: Callable[[], Any], name: str) -> Iterator[Pair]:
    with user_code(f"{name} failed", InputError):
        yield from _pairs(function(), name)


def _pairs(items: Any, name: str) -> Iterator[Pair]:
    if not isinstance(items, Iterable):
        raise InputError(f"{name} gives a {type(items).__name__}; it must give feeds, or pairs of feed and labels")
    for item in items:
        match item:
            case (feed, labels):
                yield feed, None if labels is None else np.asarray(labels)
            case _:
                yield item, None


def _unpacked(arrays: Mapping[str, Any], inputs: Sequence[Port], name: str) -> Iterator[Pair]:
    """The feeds in one array per input."""
    ports = {p.name: p for p in inputs}
    key = "__labels__" if "labels" in ports else "labels"
    labels = np.atleast_1d(np.asarray(arrays[key])) if key in arrays else None
    values = {n: np.asarray(a) for n, a in arrays.items() if n != key}
    known = {n: a for n, a in values.items() if n in ports}
    extra = {n: a.ndim - len(ports[n].shape or ()) for n, a in known.items()}
    misfit = any(ports[n].shape and e not in {0, 1} for n, e in extra.items())
    if misfit or len(known) < len(values) or len(known) < len(ports):
        yield values, None  # the check of feeds says in words what is wrong
        return
    if rows_are_samples(inputs) and set(extra.values()) == {1}:  # feeds of several rows: all rows are samples
        known = {n: a.reshape(-1, *a.shape[2:]) for n, a in known.items()}
        if labels is not None and labels.ndim > 1:
            labels = labels.reshape(-1, *labels.shape[2:])
        extra = dict.fromkeys(extra, 0)
    if rows_are_samples(inputs) and set(extra.values()) == {0}:
        yield known, labels
        return
    cuts = {n: _feeds_of(a, ports[n], extra[n], name) for n, a in known.items()}
    counts = {n: len(c) for n, c in cuts.items() if c is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{n!r} has {c}" for n, c in counts.items())
        raise InputError(f"{name} has different numbers of feeds for the inputs: {listed}")
    count = next(iter(counts.values()), 1)
    cut = {len(known[n]) for n, c in cuts.items() if c is not None and not extra[n]}
    if (
        labels is not None and count and len(labels) != count and cut == {len(labels)}
    ):  # one for each row of the feeds that they are cut to
        labels = labels.reshape(count, -1, *labels.shape[1:])
    if labels is not None and len(labels) != count:
        raise InputError(f"{name} has {counted(len(labels), 'label')} for {counted(count, 'feed')}")
    for i in range(count):
        yield {n: known[n] if c is None else c[i] for n, c in cuts.items()}, None if labels is None else labels[i]


def _feeds_of(array: np.ndarray, port: Port, extra: int, name: str) -> np.ndarray | None:
    """One feed per index of the first axis; None if every feed takes the array as it is."""
    if extra == 1:
        return array
    if not port.shape:
        return None
    first = port.shape[0]
    if not isinstance(first, int):
        return array[None]
    if not first or len(array) % first:
        raise InputError(
            f"{name}: {port.name!r} has {counted(len(array), 'sample')}, but the model takes {first} at a time"
        )
    return array.reshape(-1, first, *array.shape[1:])


def _fitted(port: Port, value: Any, name: str) -> Any:
    if port.kind != "tensor":
        return value
    array = np.asarray(value)
    if array.dtype.kind == "V" and port.dtype is not None and array.dtype.itemsize == port.dtype.itemsize:
        array = array.view(port.dtype)  # .npy files forget the names of bfloat16 and float8
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype != port.dtype and not (port.dtype == np.dtype(object) and array.dtype.kind == "U"):
        raise InputError(f"{name} gives {port.name!r} as {array.dtype}; the model takes {port.dtype}")
    if port.shape:  # () may be an unknown rank
        fits = array.ndim == len(port.shape) and all(
            not isinstance(d, int) or d == n for d, n in zip(port.shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("?" if d is None else str(d) for d in port.shape)
            raise InputError(
                f"{name} gives {port.name!r} with the shape {list(array.shape)}; the model takes [{wanted}]"
            )
    return array


def rows_of(feed: Feed) -> int:
    """How many samples a feed holds, where its rows are samples."""
    return len(next(iter(feed.values())))


def _cut(feed: Feed, labels: np.ndarray | None, start: int, stop: int) -> Pair:
    return {n: a[start:stop] for n, a in feed.items()}, None if labels is None else labels[start:stop]


def _stackable(a: Pair, b: Pair) -> bool:
    same = (a[1] is None) == (b[1] is None)
    return same and a[0].keys() == b[0].keys() and all(a[0][n].shape[1:] == b[0][n].shape[1:] for n in a[0])


def _stack(parts: list[Pair]) -> Pair:
    if len(parts) == 1:
        return parts[0]
    labels = [labels for _, labels in parts if labels is not None]
    feed = {n: np.concatenate([part[n] for part, _ in parts]) for n in parts[0][0]}
    return feed, np.concatenate(labels) if labels else None


def add_digest(digest: Any, name: str, value: Any) -> None:
    """Adds one value, with its name, type and shape, so that no two contents look alike."""
    if value is None or isinstance(value, list | tuple):
        digest.update(repr((name, None if value is None else len(value))).encode())
        for item in value or ():
            add_digest(digest, name, item)
        return
    array = np.asarray(value)
    textual = array.dtype.kind in "OU"
    digest.update(repr((name, "str" if textual else array.dtype.name, array.shape)).encode())
    digest.update(repr(array.tolist()).encode() if textual else np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _told(labels: np.ndarray | None, *, rows: bool) -> str | None:
    """What the label of one sample is."""
    if labels is None:
        return None
    shape = labels.shape[1:] if rows else labels.shape
    return f"{labels.dtype}{f' {list(shape)}' if shape else ''}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "nothing"
