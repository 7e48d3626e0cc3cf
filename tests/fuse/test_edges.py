"""Fused operators answer not-a-number, infinities and zeros as the spelled-out functions do."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.fuse import FuseActivation, FuseAttention, FuseNorm, FuseProduct, FuseRotary
from graphopt.protocol import Evaluator
from tests.golden.cases import Case, read
from tests.support.models import differences, feed, parse, rewritten, run, source

CASES = [
    case
    for fusion in (FuseNorm, FuseActivation, FuseAttention, FuseProduct, FuseRotary)
    for rule in fusion.rules
    for case in read(rule)
    if case.after is not None
]


@pytest.mark.parametrize("case", CASES, ids=map(str, CASES))
@pytest.mark.parametrize("seed", range(4))
def test_edges_come_out_as_spelled_out(case: Case, seed: int, evaluate: Evaluator) -> None:
    before = parse(case.before)
    after = rewritten(source(case.before), case.passes, evaluate, growth=case.growth).model
    given = feed(before, case.bindings[-1], seed=seed, edges=True)
    with np.errstate(invalid="ignore"):
        assert not differences(run(before, given), run(after, given), relative=1e-5)
