"""What is to be done, as data: passes with their fields, and what to leave alone.

A pass is written `name` or `name{field=value,…}`, with values as in TOML; the same text serves on the command line, in
a recipe file, and in the emitted model.
"""

from __future__ import annotations

import dataclasses
import os
import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from graphopt.catalogue import LOSSLESS, USUAL, parse_pass
from graphopt.compress.forms.codebook import Codebook
from graphopt.compress.forms.form import Form
from graphopt.compress.halves.half import HalfPrecision
from graphopt.compress.integers.blocks import Blocks
from graphopt.compress.integers.dynamic import Dynamic
from graphopt.compress.integers.packing import Packing
from graphopt.compress.integers.quantize import Quantize
from graphopt.compress.integers.unquantize import Unquantize
from graphopt.compress.sparsify import Sparsify
from graphopt.errors import InputError, UsageError
from graphopt.fuse import FuseNorm
from graphopt.plan.budget import drops, shares
from graphopt.protocol import Named, Pass
from graphopt.rewrite import Strip
from graphopt.spelling import spec
from graphopt.targets import TARGETS
from graphopt.upgrade import Upgrade

__all__ = ["Recipe", "choose", "read_toml", "words"]

_VERSION = 1
_MOST_TEXT = 1 << 22
"""Characters of a recipe, most of them keys to skip."""
_MOST_DOTS = 100
"""Before the first = of a line: what parses TOML takes memory that is quadratic in the parts of a key."""


def _passes(text: str) -> Sequence[Named]:
    return Recipe.passes if text.strip() == USUAL else (parse_pass(text),)


def words(name: str, given: Any) -> tuple[str, ...] | None:
    """A list of text; a lone text is a list of it, and None stays None.

    Raises:
        UsageError: it is no list, or an item is no text.
    """
    if given is None or isinstance(given, str):
        return None if given is None else (given,)
    items: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) else (given,)
    if any(not isinstance(item, str) for item in items):
        raise UsageError(f"{name} is a list of text, not {reprlib.repr(given)}")
    return items


@dataclass(frozen=True)
class Recipe:
    """Passes in their order, keys of nodes to leave as they are, and what the passes may count on."""

    passes: tuple[Pass, ...] = tuple(p() for p in LOSSLESS)
    skip: tuple[str, ...] = ()
    freeze: bool = False
    """Whether overridable weights become constants."""
    target: str = "portable"
    """Name of the runtime to make the model for."""
    fast_math: bool = False
    """Whether float algebra is allowed that does not hold for not-a-number, infinities and −0."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """By resource, the share of what the model takes as given that may remain."""
    max_drop: Mapping[str, float] = field(default_factory=dict)
    """By metric, how much worse the result may do."""
    plan: Mapping[str, int] = field(default_factory=dict)
    """By group of channels, how many stay: what was planned under a budget, for doing it again."""
    form: Form | None = None
    """The way in which every product is written that can be, in place of a plan. In texts it is one of the passes."""
    forms: Mapping[str, str] = field(default_factory=dict)
    """By key of a product, how it is written in another way: what was planned as well."""
    unquantize: Unquantize | None = None
    """Whether integers become floats, first of all. In texts it is one of the passes."""
    sparsify: Sparsify | None = None
    """Which weights become zero, after all that is planned. In texts it is one of the passes."""
    quantize: Quantize | None = None
    """How the model is quantized, last of all. In texts it is one of the passes."""
    blocks: Blocks | None = None
    """How weights are packed, last of all. In texts it is one of the passes."""
    dynamic: Dynamic | None = None
    """How products compute on integers that are found as the model runs. In texts it is one of the passes."""
    half: HalfPrecision | None = None
    """Which half precision it computes in, last of all. In texts it is one of the passes."""
    floats: tuple[str, ...] | None = None
    """Keys of nodes that compute on floats all the same, for doing it again; None while that is to be decided."""

    @property
    def lossy(self) -> bool:
        """Whether anything is given up."""
        return self.cuts or any(self._given)

    @property
    def cuts(self) -> bool:
        """Whether products change. Beside other passes that give something up, an allowed drop alone limits those."""
        return bool(self.budget or self.planned or self.form or (self.max_drop and not any(self._given)))

    @property
    def planned(self) -> bool:
        """Whether it holds a plan, for doing it again."""
        return bool(self.plan or self.forms)

    @property
    def retyped(self) -> tuple[Named, ...]:
        """What gives weights another type, of which there can be one, and no table of weights with it."""
        return tuple(p for p in (self.quantize, self.blocks, self.dynamic, self.half) if p is not None)

    @property
    def packing(self) -> Packing | None:
        """How weights become integers while values stay floats."""
        return self.blocks or self.dynamic

    @property
    def _given(self) -> tuple[Named | None, ...]:
        return self.unquantize, self.form, self.sparsify, self.quantize, self.blocks, self.dynamic, self.half

    @property
    def given_up(self) -> tuple[str, ...]:
        """What gives something up, in words."""
        return (*(("pruning",) if self.plan else ()), *(p.name for p in self._given if p is not None))

    def __post_init__(self) -> None:
        if self.form is not None and (self.budget or self.planned):
            raise UsageError(f"a budget chooses among all forms by itself: give it, or {self.form.name}")
        if self.target not in TARGETS:
            raise UsageError(f"no target is called {self.target!r}: give one of {', '.join(TARGETS)}")
        coded = [self.form] if isinstance(self.form, Codebook) else []
        if len(several := [p.name for p in (*coded, *self.retyped)]) > 1:
            raise UsageError(f"{' and '.join(several)} exclude each other: give one of them")
        if self.quantize is not None and TARGETS[self.target].integers is None:
            able = ", ".join(name for name, target in TARGETS.items() if target.integers is not None)
            raise UsageError(
                f"int8 is made for a runtime, and {self.target} is none that gains by it: give one of {able}"
            )
        if len(forms := [p.name for p in (self.quantize, self.blocks, self.dynamic) if p is not None]) > 1:
            raise UsageError(f"weights become integers in one way: give {' or '.join(forms)}")
        if self.dynamic is not None and not TARGETS[self.target].dynamic:
            able = ", ".join(name for name, target in TARGETS.items() if target.dynamic)
            raise UsageError(f"{self.target} has no fast kernels for dynamic integers: give one of {able}")

    @classmethod
    def of(
        cls,
        passes: str | Sequence[str] | None = None,
        skip: str | Sequence[str] | None = None,
        *,
        opset: int | None = None,
        keep_metadata: bool = False,
        budget: Mapping[str, float] | Sequence[str] | None = None,
        max_drop: Mapping[str, float] | Sequence[str] | None = None,
        plan: Mapping[str, int] | None = None,
        forms: Mapping[str, str] | None = None,
        int8: bool = False,
        weight_bits: int | None = None,
        fp16: bool = False,
        bf16: bool = False,
        floats: Sequence[str] | None = None,
        **options: Any,
    ) -> Recipe:
        """From the command line's words; if no passes are given (None), the lossless ones, and with [] none.

        Args:
            passes: names, `name{field=value}`, or "lossless" for all that run unasked.
            skip: keys of nodes.
            opset: of standard ONNX, to be reached before operators are fused; by default what the target needs, if the
                passes are the usual ones.
            keep_metadata: leave out the pass that drops exporters' notes.
            budget: as `plan.budget.shares` takes it.
            max_drop: as `plan.budget.drops` takes it.
            plan: as the field.
            forms: as the field.
            int8: whether to quantize.
            weight_bits: of a quantized weight.
            fp16: whether to compute in half precision.
            bf16: the same, of the other type.
            floats: as the field.
            options: `freeze`, `target`, `fast_math`, as the fields.

        Raises:
            UsageError: unknown pass, field or target, a value of another type, or what is no list of text.
        """
        named = words("passes", passes)
        every = [p for name in ((USUAL,) if named is None else named) for p in _passes(name)]
        chosen = tuple(p for p in every if isinstance(p, Pass))
        every += [*_quantize(int8, weight_bits), *_half(fp16=fp16, bf16=bf16)]
        if keep_metadata:
            chosen = tuple(p for p in chosen if not isinstance(p, Strip))
        for name, value in options.items():
            if type(value) is not _OPTIONS[name]:
                raise UsageError(f"{name} is of type {_OPTIONS[name].__name__}, not {type(value).__name__}")
        if opset is None and named is None and (target := TARGETS.get(options.get("target", ""))) is not None:
            opset = target.opset
        if opset is not None:
            if type(opset) is not int or opset < 1:
                raise UsageError(f"opset is {opset!r}: give a whole number from 1 on")
            canonical = [not isinstance(p, FuseNorm) for p in chosen]
            place = canonical.index(False) if False in canonical else 0  # the fewer unknown ranks, the better
            chosen = (*chosen[:place], Upgrade(opset), *chosen[place:])
        options["budget"] = shares(budget) if budget else {}
        options["max_drop"] = drops(max_drop) if max_drop else {}
        options |= _lossy(every)
        options["floats"] = words("floats", floats)
        return cls(chosen, words("skip", skip) or (), plan=dict(plan or {}), forms=dict(forms or {}), **options)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """From a file that `text` was written to.

        Raises:
            InputError: it cannot be read or is no recipe.
        """
        return cls.parse(_text(path), str(path))

    @classmethod
    def parse(cls, text: str, name: str = "recipe") -> Recipe:
        """From TOML.

        Raises:
            InputError: it is no recipe; the text says why.
        """
        data = _parsed(text, name)
        known = ["version", *_LISTS, *_OPTIONS, *_TABLES]
        if unknown := [k for k in data if k not in known]:
            raise InputError(f"{name} is no recipe: it has {unknown[0]!r}, and may hold {', '.join(known)}")
        if (found := data.pop("version", None)) != _VERSION:
            raise InputError(f"{name} is a recipe of version {found}: this graphopt reads {_VERSION}")
        if any(isinstance(data.get(k, []), str) for k in _LISTS):
            raise InputError(f"{name} is no recipe: {', '.join(_LISTS)} are lists of text")
        if wrong := [k for k in _TABLES if not isinstance(data.get(k, {}), dict)]:
            raise InputError(f"{name} is no recipe: {wrong[0]} is a table")
        try:
            return cls.of(**data)
        except UsageError as problem:  # the mistake is in the file, not in the call
            raise InputError(f"{name} is no recipe: {problem}") from None

    def text(self) -> str:
        """As TOML."""
        passes = (*self.passes, *(p for p in self._given if p is not None))
        data: dict[str, Any] = {"version": _VERSION, "passes": [spec(p) for p in passes]}
        if self.skip:
            data["skip"] = list(self.skip)
        if self.floats is not None:
            data["floats"] = list(self.floats)
        data |= {name: value for name in _OPTIONS if (value := getattr(self, name)) != getattr(Recipe, name)}
        data |= {name: dict(table) for name in _TABLES if (table := getattr(self, name))}
        return tomli_w.dumps(data, indent=0)


def _quantize(int8: object, weight_bits: object) -> list[Named]:
    """What the words of the command line say of integers."""
    if type(int8) is not bool:
        raise UsageError(f"int8 is of type bool, not {type(int8).__name__}")
    if weight_bits is None:
        return [Quantize()] * int8
    if not int8:
        raise UsageError("weight_bits are those of int8 models: give int8 as well")
    if type(weight_bits) is not int:
        raise UsageError(f"weight_bits is of type int, not {type(weight_bits).__name__}")
    return [Quantize(weight_bits)]


def _half(**given: object) -> list[Named]:
    """What the words of the command line say of half precision."""
    for name, value in given.items():
        if type(value) is not bool:
            raise UsageError(f"{name} is of type bool, not {type(value).__name__}")
    if given["fp16"] and given["bf16"]:
        raise UsageError("fp16 and bf16 are two types of half precision: give one of both")
    kinds = {"fp16": "float16", "bf16": "bfloat16"}
    return [HalfPrecision(kinds[name]) for name, value in given.items() if value]


def _lossy(steps: Sequence[Named]) -> dict[str, Any]:
    """What is given up, by the fields of a recipe."""
    found = dict[str, Any]()
    for name, kind in _GIVEN.items():
        given = [p for p in steps if isinstance(p, kind)]
        if len(given) > 1:
            names = tuple(dict.fromkeys(p.name for p in given))
            if len(names) > 1:
                raise UsageError(f"{' and '.join(names)} exclude each other: give one of them")
            raise UsageError(f"{names[0]} is given twice: give it once, with all that it is to do")
        found[name] = given[0] if given else None
    return found


_GIVEN: Mapping[str, type[Named]] = {
    "unquantize": Unquantize,
    "form": Form,
    "sparsify": Sparsify,
    "quantize": Quantize,
    "blocks": Blocks,
    "dynamic": Dynamic,
    "half": HalfPrecision,
}
"""Passes that are fields of their own."""
_LISTS = ("passes", "skip", "floats")
_TABLES = ("budget", "max_drop", "plan", "forms")
_OPTIONS: Mapping[str, type] = {
    f.name: type(f.default) for f in dataclasses.fields(Recipe) if f.name not in {*_LISTS, *_TABLES, *_GIVEN}
}
"""The fields that are one value each, with their types."""


def choose(recipe: str | os.PathLike[str] | Recipe | None, **given: Any) -> Recipe:
    """The recipe that a verb was given, or one of what it was given in its place, as `Recipe.of` takes it.

    Raises:
        InputError: the recipe's file cannot be read or is no recipe.
        UsageError: both were given, or what was given makes no sense.
    """
    if recipe is None:
        return Recipe.of(**given)
    usual = {f.name: f.default for f in dataclasses.fields(Recipe)} | {
        **dict.fromkeys(_TABLES),
        **dict.fromkeys(("passes", "opset", "weight_bits")),
        "keep_metadata": False,
        **dict.fromkeys(("int8", "fp16", "bf16"), False),
    }
    if more := [name for name, value in given.items() if value is not None and value != usual[name]]:
        raise UsageError(f"a recipe already says what to do: give it alone, without {' and '.join(more)}")
    if not isinstance(recipe, Recipe | str | os.PathLike):
        raise UsageError(f"a {type(recipe).__name__} is no recipe: give a Recipe or the path of its file")
    return recipe if isinstance(recipe, Recipe) else Recipe.read(Path(recipe))


def read_toml(path: Path) -> dict[str, Any]:
    """What a file holds.

    Raises:
        InputError: it cannot be read, or is no TOML that is safe to read.
    """
    return _parsed(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a device may never end, a pipe may never begin
            raise InputError(f"{path} cannot be read: it is no file")
        with path.open(encoding="utf-8") as file:
            return file.read(_MOST_TEXT + 1)
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}") from None
    except ValueError:
        raise InputError(f"{path} cannot be read: it is not UTF-8 text") from None


def _parsed(text: str, name: str) -> dict[str, Any]:
    if len(text) > _MOST_TEXT or any(line.partition("=")[0].count(".") > _MOST_DOTS for line in text.splitlines()):
        raise InputError(f"{name} cannot be read: it is too long, or its tables are too deep")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{name} is not TOML: {problem}") from None
