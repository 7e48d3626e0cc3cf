"""What goes into a model and comes out of it, and whether another one can take its place there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from graphopt.run.noise import shown
from graphopt.run.session import Port

__all__ = ["Interface", "changes"]


class Interface(Protocol):
    """What feeds have to fit, such as a `Session`."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    overridable: tuple[Port, ...]
    """Weights that a feed may override."""


def changes(original: Interface, candidate: Interface) -> tuple[str, ...]:
    """What changed in the names, types and shapes of inputs, outputs and overridable weights, one phrase each."""
    return (
        *_changed("input", original.inputs, candidate.inputs),
        *_changed("output", original.outputs, candidate.outputs),
        *_changed("overridable weight", original.overridable, candidate.overridable),
    )


def _changed(role: str, before: Sequence[Port], after: Sequence[Port]) -> Iterator[str]:
    old, new = {p.name: p for p in before}, {p.name: p for p in after}
    lost, gained = [n for n in old if n not in new], [n for n in new if n not in old]
    if len(lost) == len(gained):
        yield from (f"{role} {a!r} is now called {b!r}" for a, b in zip(lost, gained, strict=True))
    else:
        yield from (f"{role} {n!r} is missing" for n in lost)
        yield from (f"{role} {n!r} is new" for n in gained)
    if not lost and not gained and list(old) != list(new):
        yield f"the {role}s stand in another order"
    for a, b in ((old[n], new[n]) for n in old if n in new):
        if a.type != b.type:
            yield f"{role} {a.name!r} was a {a.type}, is a {b.type}"
        elif a.shape and b.shape and len(a.shape) != len(b.shape):  # () may be an unknown rank
            yield f"{role} {a.name!r} had {len(a.shape)} axes, has {len(b.shape)}"
        elif a.shape and b.shape and any(_fixed(role, x, y) for x, y in zip(a.shape, b.shape, strict=True)):
            yield f"{role} {a.name!r} had the shape {shown(a.shape)}, has {shown(b.shape)}"


def _fixed(role: str, before: int | str | None, after: int | str | None) -> bool:
    """Whether a dimension no longer takes, or gives, what it did. Knowing more about an output is no change."""
    return isinstance(after, int) and after != before and (role != "output" or isinstance(before, int))
