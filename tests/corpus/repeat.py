"""Optimizes many valid cases, and prints what came out: `python -m tests.corpus.repeat FOLDER THREADS`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import graphopt
from tests.corpus.case import Place
from tests.corpus.test_valid import CASES

__all__ = ["main"]

_EACH = 8
"""One case in so many; of these, one in eight is also run."""


def main() -> None:
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    for number, case in enumerate(CASES[::_EACH]):
        place = Place(folder / case.name).made()
        place.model.write_bytes(case.model().SerializeToString())
        verified = number % 8 == 0 and case.runs
        result = graphopt.optimize(place.model, threads=threads, device="cpu", unverified=not verified)
        out = result.save(place.inner / "out.onnx")
        print(case.name, hashlib.sha256(out.read_bytes()).hexdigest())  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
