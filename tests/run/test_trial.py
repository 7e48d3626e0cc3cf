"""What kills the runtime does so in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphopt import api
from graphopt.errors import InputError, NeedsData
from graphopt.run import trial
from graphopt.run.child import Child, Limits
from tests.support.models import parse

LEAST = "<int64 a = {-9223372036854775808}, int64 b = {-1}, int64 one = {1}>"
SLEEPING = f"""g (float[2] x, bool c) => (int64 y) {LEAST} {{
  n = Not (c) never = And (c, n)
  y = If (never) <
    then_branch = t () => (int64 p) {{ p = Div (a, b) }},
    else_branch = e () => (int64 q) {{ q = Neg (one) }}
  >
}}"""
"""Its division is done only by a runtime that computes constants ahead of time."""
DIVIDES = "g (int64[n] x, int64[n] d) => (int64[n] y) { y = Div (x, d) }"
FATAL = {"x": np.array([-(1 << 63)] * 2), "d": np.array([-1, -1])}
FINE = {"x": np.array([4, 2]), "d": np.array([2, 2])}


def content(text: str) -> bytes:
    return bytes(parse(text).SerializeToString())


def test_a_division_that_only_the_optimizer_does() -> None:
    for verb in (api.optimize, api.bench):
        with pytest.raises(InputError, match="onnxruntime does not survive the model: the worker was killed by SIGFPE"):
            verb(parse(SLEEPING), device="cpu")


def test_a_division_on_the_users_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "fatal.npz", x=FATAL["x"], d=FATAL["d"])
    np.savez(tmp_path / "fine.npz", x=FINE["x"], d=FINE["d"])
    for verb in (api.optimize, api.bench):
        with pytest.raises(InputError, match="does not survive the model"):
            verb(parse(DIVIDES), data=str(tmp_path / "fatal.npz"), device="cpu")
        verb(parse(DIVIDES), data=str(tmp_path / "fine.npz"), device="cpu")


@pytest.mark.parametrize("verb", [api.check, api.bench])
def test_a_division_in_the_second_model(verb: object) -> None:
    assert callable(verb)
    first, second = "g (int64[2] x) => (int64[2] y) { y = Neg (x) }", "g (int64[2] x) => (int64[2] y) {} { {} }"
    constants = "<int64 a = {-9223372036854775808}, int64 b = {-1}>"
    body = "z = Sub (x, x) l = Add (z, a) m = Add (z, b) y = Div (l, m)"
    fatal = second.replace("{}", constants, 1).replace("{}", body, 1)
    with pytest.raises(InputError, match=r"the (candidate|other model): onnxruntime does not survive the model"):
        verb(parse(first), parse(fatal), device="cpu")


def test_what_fails_without_killing_is_left_to_the_one_who_runs_it() -> None:
    with Child(Limits(20)) as child:
        trial.endure(child, content("g (float[2] x) => (float[2] y) { y = Neg (x) }"), [{"x": np.ones(3, np.float32)}])
        with pytest.raises(InputError, match="does not load"):
            trial.inputs(child, b"nothing")


def test_a_search_ends_when_every_feed_kills_the_runtime() -> None:
    with pytest.raises(NeedsData, match="killed by SIGFPE"):
        api.optimize(parse(f"g (float[2] x) => (int64 y, float[2] z) {LEAST} {{ y = Div (a, b) z = Abs (x) }}"))
