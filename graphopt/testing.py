"""For people's own tests: `assert_equivalent("model.onnx", "model.opt.onnx")`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphopt.api import Model, check

__all__ = ["assert_equivalent"]


def assert_equivalent(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    atol: float | None = None,
    rtol: float | None = None,
    set_dims: Mapping[str, int] | None = None,
) -> None:
    """Fail unless the candidate does the reference's job; parameters are those of `graphopt.check`.

    Raises:
        AssertionError: it does not; the text says where they differ.
    """
    report = check(reference, candidate, data=data, device="cpu", atol=atol, rtol=rtol, set_dims=set_dims)
    if report.passed:
        return
    wrong = [str(o) for o in report.verification.outputs if not o.passed]
    raise AssertionError(
        "; ".join((f"{report.candidate} is not {report.reference}", *report.verification.differences, *wrong))
    )
