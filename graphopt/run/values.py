"""Values for a model's inputs: random, but within what is known to make sense, and the same for the same seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from graphopt.graph.domain import Domain
from graphopt.run.session import Port

__all__ = ["STYLES", "Style", "equal", "value"]

_WORDS: Final = ("a", "bird", "in", "the", "hand")
_ITEMS: Final = 3  # tensors in a sequence
_SCALARS: Final = 4  # different values that a lone integer takes: it may well be a trip count


@dataclass(frozen=True)
class Style:
    """What to try at inputs about which nothing is known.

    Feed number i draws its floats by `laws[i]` (cyclic). Integers come from [low, high); with `wide`, those of 8 bits
    take every value that they have, as images do. `absent`: every other feed leaves optional inputs empty. `beyond`:
    floats keep to no domain that is bounded on one side only.
    """

    laws: tuple[Literal["normal", "uniform", "spread", "ones"], ...]
    low: int
    high: int
    wide: bool = False
    absent: bool = False
    beyond: bool = False


STYLES: Final = (
    Style(("normal", "uniform"), 0, 10, wide=True, absent=True),
    Style(("uniform",), 0, 2),
    Style(("normal", "uniform"), 1, 5),
    Style(("ones",), 1, 2),
)
"""In the order in which they are tried: normal shows both signs, uniform keeps logarithms and roots alive."""

_ANY: Final = Domain()
_SPREAD: Final = 10.0  # standard deviations: enough to reach what clips at 6


def value(
    port: Port, shape: tuple[int, ...], dims: Mapping[str, int], domain: Domain, style: Style, *, seed: int, index: int
) -> Any:
    """The value of one input in feed number `index`."""
    rng = np.random.default_rng([seed, zlib.crc32(port.name.encode()), index])
    if port.kind == "optional" and style.absent and index % 2:
        return None
    element = port.element
    assert element is not None  # noqa: S101 - `generate` refuses other kinds
    if "seq(" in port.type:
        return [_array(element, shape, dims, domain, style, rng, index) for _ in range(_ITEMS)]
    return _array(element, shape, dims, domain, style, rng, index)


def equal(a: Any, b: Any) -> bool:
    """Whether two values of an input, or two feeds, are the same."""
    match a, b:
        case (dict(), dict()):
            return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
        case (list(), list()):
            return len(a) == len(b) and all(map(equal, a, b))
        case (None, _) | (_, None):
            return a is b
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and x.shape == y.shape and x.tolist() == y.tolist()


def _array(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dims: Mapping[str, int],
    domain: Domain,
    style: Style,
    rng: np.random.Generator,
    index: int,
) -> np.ndarray:
    single = np.prod(shape, dtype=object) == 1
    array: np.ndarray
    match dtype.kind:
        case "O":
            return rng.choice(np.array(_WORDS, object), shape)
        case "b":
            # A lone truth value picks a branch: both get their turn.
            return np.full(shape, index % 2 == 0) if single else rng.random(shape) < 0.5  # noqa: PLR2004 - a fair coin
        case "i" | "u":
            low, high = _range(dtype, dims, domain, style)
            if single and not isinstance(domain.high, str):
                low = min(max(low, 1), high - 1) if low >= 0 else max(low, -_SCALARS)
                high = min(high, low + _SCALARS)
                array = np.full(shape, low + index % (high - low), dtype)
            else:
                array = rng.integers(low, high, shape, dtype, endpoint=False)
        case _:
            law = style.laws[index % len(style.laws)]
            free = style.beyond and domain.high is None
            array = _floats(law, shape, dims, _ANY if free else domain, rng).astype(dtype)
    return np.sort(array, axis=-1) if domain.ascending and array.ndim else array


def _range(dtype: np.dtype[Any], dims: Mapping[str, int], domain: Domain, style: Style) -> tuple[int, int]:
    """Bounds of an integer, the upper one exclusive."""
    info = np.iinfo(dtype)
    low, high = _interval(domain, dims)
    if low is None and high is None:
        low, high = (info.min, info.max + 1) if style.wide and dtype.itemsize == 1 else (style.low, style.high)
    elif low is None or high is None:
        low = min(0, high - 1) if low is None and high is not None else low or 0
        high = low + style.high if high is None else high
    low = min(max(low, int(info.min)), int(info.max))
    return low, min(max(high, low + 1), int(info.max) + 1)


def _interval(domain: Domain, dims: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Bounds of a domain, the upper one exclusive: what counts from 1 up to a dimension may be all of it."""
    low, high = domain.low, domain.limit(dims)
    if high is not None and isinstance(domain.high, str) and low is not None and low > 0:
        high += 1
    return low, high


def _floats(
    law: str, shape: tuple[int, ...], dims: Mapping[str, int], domain: Domain, rng: np.random.Generator
) -> np.ndarray:
    low, high = _interval(domain, dims)
    if low is not None and high is not None:
        return rng.uniform(low, max(low, high), shape)
    match law:
        case "ones":
            array = np.ones(shape)
        case "uniform":
            array = np.asarray(rng.random(shape))
        case _:
            array = np.asarray(rng.normal(scale=_SPREAD if law == "spread" else 1.0, size=shape))
    if low is not None:
        return low + np.abs(array)
    return array if high is None else high - np.abs(array)
