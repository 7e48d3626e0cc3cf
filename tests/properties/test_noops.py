"""What is called a no-op gives one of its inputs back bit for bit, also where numbers are not ordinary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from graphopt import ops
from graphopt.graph import values

from .examples import ints, one
from .single import Const, Example

ODD = np.array([[0.0, -0.0, np.inf], [-np.inf, np.nan, 1e-45]], np.float32)
WHOLE = np.array([[1, -2, 3], [0, 5, -6]])
TRUTH = np.array([[True, False, True]])


def noops() -> Iterator[Example]:
    """Uses of each operator that do nothing."""
    yes, no = Const(one(1, bool)), Const(one(0, bool))
    yield from (Example(op, (ODD,)) for op in ("Identity", "Max", "Min", "Sum", "Mean", "Dropout"))
    for x in (ODD, WHOLE):
        nil, unit = Const(np.array(-0.0, x.dtype)), Const(np.ones((1, 1), x.dtype))
        yield from (Example("Add", pair) for pair in ((x, nil), (nil, x)))
        yield from (Example("Mul", pair) for pair in ((x, unit), (unit, x)))
        yield Example("Sub", (x, Const(np.zeros(3, x.dtype))))
        yield from (Example(op, (x, unit)) for op in ("Div", "Pow"))
    yield from (Example("And", pair) for pair in ((TRUTH, yes), (yes, TRUTH)))
    yield from (Example(op, pair) for op in ("Or", "Xor") for pair in ((TRUTH, no), (no, TRUTH)))
    yield Example("Cast", (ODD,), {"to": 1})
    yield Example("CastLike", (ODD, ODD))
    yield Example("Clip", (WHOLE,))
    yield Example("Concat", (ODD,), {"axis": 0})
    yield from (Example(op, (ODD[None, :, :, None],), {"blocksize": 1}) for op in ("DepthToSpace", "SpaceToDepth"))
    yield Example("Expand", (ODD, Const(ints(1, 3))))
    yield Example("Flatten", (ODD,))
    yield Example("Pad", (ODD, Const(ints(0, 0, 0, 0))))
    yield Example("Reshape", (ODD, Const(ints(2, -1))))
    yield Example("Squeeze", (ODD,))
    yield Example("Unsqueeze", (ODD, Const(np.zeros(0, np.int64))))
    yield Example("Slice", (ODD, Const(ints(0)), Const(ints(2**62)), Const(ints(1))))
    yield Example("Split", (ODD,), {"num_outputs": 1})
    yield Example("Tile", (ODD, Const(ints(1, 1))))
    yield Example("Transpose", (ODD,), {"perm": [0, 1]})
    yield from (Example("Where", (Const(np.full((2, 3), c)), WHOLE, -WHOLE)) for c in (True, False))


EXAMPLES = tuple(noops())


def test_every_operator_that_can_be_a_noop_is_one_in_an_example() -> None:
    assert {e.op for e in EXAMPLES} == ops.NOOPS.keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{i}-{e}" for i, e in enumerate(EXAMPLES)])
def test_a_noop_gives_an_input_back(example: Example) -> None:
    model = example.model()
    values.follow(model)
    same = ops.NOOPS[example.op](model.graph.node("node"))
    assert same is not None
    before, after = example.arrays[same], example.run()[0]
    assert (after.shape, after.dtype, after.tobytes()) == (before.shape, before.dtype, before.tobytes())
