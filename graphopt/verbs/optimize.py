"""Make a model smaller and faster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from graphopt import lossy, pipeline
from graphopt import recipe as recipes
from graphopt.analysis.evidence import gather
from graphopt.analysis.samples import MADE_UP, split
from graphopt.arguments import check_calibration, check_keys, check_opset, check_run
from graphopt.errors import UsageError
from graphopt.graph.load import load
from graphopt.report.asked import command
from graphopt.report.summary import summary
from graphopt.result import Result
from graphopt.run.child import Child
from graphopt.run.machine import Progress, news
from graphopt.run.session import Device
from graphopt.run.trial import guard
from graphopt.verbs.given import LOG, Model

__all__ = ["optimize"]


def optimize(
    model: Model,
    *,
    data: Any = None,
    device: Device = "auto",
    passes: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    recipe: str | os.PathLike[str] | recipes.Recipe | None = None,
    freeze: bool = False,
    target: str = "portable",
    opset: int | None = None,
    fast_math: bool = False,
    keep_metadata: bool = False,
    budget: Mapping[str, float] | Sequence[str] | None = None,
    max_drop: Mapping[str, float] | Sequence[str] | None = None,
    int8: bool = False,
    weight_bits: int | None = None,
    fp16: bool = False,
    bf16: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    plan_only: bool = False,
    measure: bool = False,
    unverified: bool = False,
    set_dims: Mapping[str, int] | None = None,
    external_root: str | os.PathLike[str] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Make a model smaller and faster without changing what it computes, and verify that.

    With a budget or an allowed drop channels are cut, with `sparsify` weights are, and what is left is refit.

    Args:
        model: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or torch's `ONNXProgram`. It is not changed.
        data: what to verify on: a path, `module:function`, feeds, … (see the README); generated if not given.
        device: "cpu", "cuda" (never falls back) or "auto" (CUDA where it really runs).
        passes: names or `name{field=value}`, in their order; by default the lossless ones, and with [] none.
        skip: keys of nodes to leave as they are, and under a budget, of groups of channels to keep whole.
        recipe: a recipe or its file, instead of all that says what to do.
        freeze: make constants of initializers that a feed could override.
        target: the runtime to make the model for: one of `graphopt.targets.TARGETS`.
        opset: of standard ONNX, to be raised to so that newer operators can be used; by default it stays.
        fast_math: allow float algebra that does not hold for not-a-number, infinities and −0.
        keep_metadata: keep what exporters noted at each node.
        budget: shares of the model as given that may remain: of "macs", "params", "bytes" or "latency".
        max_drop: how much worse the result may do: by "accuracy", "agreement", …; without a budget, the smallest model
            within it is looked for.
        int8: compute on 8-bit integers where that pays on the target; ranges are learned from the data.
        weight_bits: of a weight of such a model: 8, 4 or 3.
        fp16: compute in float16 wherever that does no harm; what does is learned from the data.
        bf16: the same in bfloat16.
        calibration: a file that keeps what was seen of its values: it is read, or written where it is not there yet.
        plan_only: only say what would be cut; the result is what there is before.
        measure: let the clock decide on passes that could make a model slower; the result's recipe does without those
            that did not make this one faster.
        unverified: check the structure only, and run nothing.
        set_dims: extents of symbolic dimensions in generated feeds.
        external_root: a folder in which weights may be, also behind links, instead of the model's folder.
        threads: of one operator; 0 for all cores.
        seed: of everything random.
        progress: called with a few words when a phase begins, and again with each part of one whose parts are counted:
            the words then have the numbers `done` and `total`.

    Raises:
        InputError: the model or the data cannot be read or is invalid, or the model does not run.
        NeedsData: no generated feed runs on the model.
        UsageError: the arguments contradict each other.
        MachineError: `device` is "cuda", and CUDA does not run here.
        Verdict: the budget cannot be met, or not within the allowed drop.
    """
    asked = command(optimize, locals())
    say = progress or news(LOG.info)
    check_run(device=device, threads=threads, seed=seed, set_dims=set_dims)
    if unverified and (data is not None or set_dims or device == "cuda"):
        raise UsageError("unverified runs nothing: leave out data, dimensions and device")
    if measure and (unverified or recipe is not None):
        raise UsageError("measuring decides what to do, by running it: give neither a recipe nor unverified with it")
    chosen = recipes.choose(
        recipe,
        passes=passes,
        skip=skip,
        freeze=freeze,
        target=target,
        opset=opset,
        fast_math=fast_math,
        keep_metadata=keep_metadata,
        budget=budget,
        max_drop=max_drop,
        int8=int8,
        weight_bits=weight_bits,
        fp16=fp16,
        bf16=bf16,
    )
    if unverified and chosen.lossy:
        raise UsageError("what is given up is measured: leave out unverified")
    if plan_only and not chosen.cuts:
        raise UsageError("plan_only needs something to plan for: give a budget or an allowed drop")
    kept = check_calibration(calibration, used=chosen.quantize is not None)
    say("loading")
    with Child() as child:
        source = load(model, freeze=chosen.freeze, external_root=external_root, guard=guard(child))
        check_opset(source, opset)
        check_keys(source, () if chosen.lossy else chosen.skip)  # of a lossy recipe once groups are known
        settings = pipeline.Settings(device, threads, seed, progress=say, measure=measure, calibration=kept)
        if chosen.lossy and data is None:
            data = MADE_UP
        evidence = None if unverified else gather(source, data, set_dims, seed, say, child)
        found = None
        if chosen.lossy and evidence and evidence.data:
            found = lossy.compress(
                source, chosen, split(evidence.data), evidence.feeds, settings, child, plan_only=plan_only
            )
            outcome = found.outcome
        else:
            outcome = pipeline.optimize(source, chosen, evidence.feeds if evidence else None, settings, child)
    say("measuring")
    return Result(summary(outcome, evidence, settings, found, asked), outcome, outcome.recipe)
