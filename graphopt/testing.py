"""For people's own tests: `assert_equivalent("model.onnx", "model.opt.onnx")`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphopt.api import Model, check
from graphopt.gate.metric import Outputs
from graphopt.run.session import Device

__all__ = ["assert_equivalent"]


def assert_equivalent(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    device: Device = "cpu",
    policy: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    max_drop: Mapping[str, float] | Sequence[str] | None = None,
    metric: str | Callable[[Outputs], float] | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    set_dims: Mapping[str, int] | None = None,
) -> None:
    """Fail unless the candidate does the reference's job.

    Parameters are those of `graphopt.check`; what else it limits is a line of a policy.

    Raises:
        AssertionError: it does not; the text says where they differ.
    """
    report = check(
        reference,
        candidate,
        data=data,
        device=device,
        policy=policy,
        max_drop=max_drop,
        metric=metric,
        atol=atol,
        rtol=rtol,
        set_dims=set_dims,
    )
    if report.passed:
        return
    wrong = [f"{row.key}: {row.text}" for row in report.rows if not row]
    raise AssertionError("; ".join((f"{report.candidate} is not {report.reference}", *wrong)))
