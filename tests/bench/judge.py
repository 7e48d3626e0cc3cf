"""Whether a result is right, and how fast: `python -m tests.bench.judge SOURCE RESULT` writes one line of JSON.

A process of its own: what other tools make may crash the runtime.
"""

from __future__ import annotations

import json
import sys

import graphopt
from graphopt.analysis.evidence import gather
from graphopt.errors import GraphoptError
from graphopt.graph.load import load
from graphopt.run.bench import bench
from graphopt.run.session import Session

_PAIRS = 50
_LEAST_MS = 1.0
"""Models that run shorter are not timed: what is measured would be noise."""
_SECONDS = 120.0


def judge(source: str, result: str) -> dict[str, object]:
    """The verdict, why it is no, and how long the result takes in relation to the source."""
    try:
        report = graphopt.check(source, result, device="cpu", threads=1)
    except GraphoptError as problem:
        return {"passed": False, "why": str(problem)}
    wrong = [str(o) for o in report.verification.outputs if not o.passed]
    if not report.passed:
        return {"passed": False, "why": "; ".join((*report.verification.differences, *wrong))}
    feed = gather(load(source), None).feeds[0]
    original, candidate = (Session(load(m).runnable, device="cpu", threads=1) for m in (source, result))
    found = bench(original, candidate, feed, pairs=2)
    if found.original_ms >= _LEAST_MS:
        found = bench(original, candidate, feed, pairs=_PAIRS, seconds=_SECONDS)
    timed = found.original_ms >= _LEAST_MS
    return {"passed": True, "ms": found.original_ms, "ratio": [found.ratio, found.low, found.high] if timed else None}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(judge(*sys.argv[1:])))
