"""One onnxruntime session, told plainly: what goes in and out, which provider really runs, one sentence per error."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import ml_dtypes
import numpy as np
import onnxruntime as ort

from graphopt.errors import InputError, MachineError, UsageError
from graphopt.graph.collector import trimmed
from graphopt.graph.external import Outside, Runnable
from graphopt.run.cuda import cuda_works, on_cuda
from graphopt.run.placement import RECORD, Placement, placed
from graphopt.run.runtime import CPU, CUDA, ERRORS, brief, create

__all__ = ["FAILS", "Bound", "Device", "Feed", "Held", "Port", "Session", "held", "port"]

Feed = dict[str, Any]
"""What one run takes: input name -> ndarray | list of ndarray (sequence) | None (empty optional)."""

Held: TypeAlias = ort.OrtValue
"""A tensor where a session computed it: on a GPU it is read (`numpy`) as late and as seldom as can be."""

Device = Literal["auto", "cpu", "cuda"]
Kind = Literal["tensor", "sequence", "optional", "other"]

FAILS: Final = "the model fails on this feed: "
"""How the sentence begins whose rest is onnxruntime's."""

_SEEDS: Final = 1 << 63
_FOREIGN: Final = {
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 16),
    "float8e4m3fn": (np.dtype(ml_dtypes.float8_e4m3fn), 17),
    "float8e4m3fnuz": (np.dtype(ml_dtypes.float8_e4m3fnuz), 18),
    "float8e5m2": (np.dtype(ml_dtypes.float8_e5m2), 19),
    "float8e5m2fnuz": (np.dtype(ml_dtypes.float8_e5m2fnuz), 20),
}
"""Element types that numpy lacks, with their ONNX numbers: onnxruntime hands these over as raw memory only."""
_NUMBERS: Final = dict(_FOREIGN.values())

_HALVES: Final = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))

_DTYPES: Final = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "string": np.dtype(object),
    **{n: np.dtype(n) for n in ("bool", "float16", "complex64", "complex128")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: dtype for name, (dtype, _) in _FOREIGN.items()},
}
"""ONNX's names of element types, as onnxruntime spells them."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    `dtype` is None for what is no tensor; `element` is the type of the tensors in a sequence or optional as well.
    A dimension is a number, a symbol, or None (unnamed). onnxruntime does not tell a scalar from a tensor of
    unknown rank: both have the shape ().
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None
    kind: Kind
    element: np.dtype[Any] | None = None
    type: str = ""


class Session:
    """A model made ready to run.

    Args:
        model: the serialized model, its large weights beside it or inside.
        device: "cpu"; "cuda", which never falls back; or "auto", CUDA where it really runs, else the CPU.
        optimize: all of onnxruntime's optimizations, or none.
        threads: threads inside one operator; 0 leaves it to onnxruntime (all cores).
        seed: seed of random operators whose node has none.
        lasting: whether what a run takes is held for the next one, which is faster. If not, it takes less memory.
        integers: whether what stands between quantizers may be computed on integers. If not, quantizers round and
            nothing else: a model whose weights are floats still is simulated as it stands, where onnxruntime would
            otherwise quantize these as well, with one scale each.
        cuda: further options of the CUDA provider, such as "enable_cuda_graph" or "user_compute_stream"; only `bound`
            runs make use of a CUDA graph. TF32 is off unless they say otherwise.
        adjust: sets further options, last.

    Raises:
        InputError: onnxruntime does not load the model.
        UsageError: an argument makes no sense.
        MachineError: `device` is "cuda" and CUDA does not run here.
    """

    provider: str
    """The one really used, e.g. "CPUExecutionProvider"; never just the one asked for."""
    reason: str
    """Why this provider, in words."""
    options: Mapping[str, str]
    """Of this provider, as they are in force."""

    def __init__(
        self,
        model: Runnable,
        *,
        device: Device = "cpu",
        optimize: bool = True,
        threads: int = 0,
        seed: int = 0,
        lasting: bool = True,
        integers: bool = True,
        cuda: Mapping[str, str] | None = None,
        adjust: Callable[[ort.SessionOptions], None] = lambda _: None,
    ) -> None:
        if device not in get_args(Device):
            raise UsageError(f"there is no device {device!r}: give one of {', '.join(get_args(Device))}")
        if threads < 0 or not 0 <= seed < _SEEDS:
            raise UsageError(f"threads and seed are numbers of at least 0, not {threads} and {seed}")
        ort.set_default_logger_severity(4)  # the C++ logger writes to stderr before any session option counts
        ort.set_seed(seed)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = options.enable_mem_pattern = lasting
        if not integers:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry(RECORD, "1")
        content, weights = (model.content, model.weights) if isinstance(model, Outside) else (model, {})
        # The runtime works on the memory that it is given, which is mapped from a file or belongs to the graph.
        self._weights = {n: np.require(w.array, requirements=["C", "A"]) for n, w in weights.items()}
        if weights:
            options.add_external_initializers(list(weights), [_to_native(a) for a in self._weights.values()])
        adjust(options)
        self._session, self.reason = _started(content, options, device, cuda or {})
        trimmed(len(content) + sum(a.nbytes for a in self._weights.values()))
        self.provider = self._session.get_providers()[0]
        self.options = self._session.get_provider_options().get(self.provider, {})
        self._plain, self._bound = _uncaptured(), False
        self.inputs = _ports(self._session.get_inputs())
        self.outputs = _ports(self._session.get_outputs())
        self.overridable = _ports(self._session.get_overridable_initializers())

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """The values of `outputs` (default: all) for one feed.

        A tensor is an ndarray (strings: of dtype object), a sequence a list, an empty optional None. Floats are rounded
        where the model takes half precision, so that it can be compared with one that takes floats.

        Raises:
            InputError: the feed does not fit the inputs, or the model fails on it.
        """
        ports = {p.name: p for p in self.outputs}
        names = list(ports) if outputs is None else list(outputs)
        if unknown := [n for n in names if n not in ports]:
            raise InputError(f"the model has no output {unknown[0]!r}; it has: {', '.join(ports)}")
        values = self._fitted(feed)
        try:
            if any(_is_foreign(p) for p in (*self.inputs, *(ports[n] for n in names))):
                results = self._run_raw(values, names)
            else:
                results = self._session.run(names, values, self._plain)
        except ERRORS as error:
            raise InputError(f"{FAILS}{brief(error)}") from error
        return dict(zip(names, results, strict=True))

    @functools.cached_property
    def placement(self) -> Placement:
        """Which provider runs which nodes; copies between devices are not looked at."""
        return placed(self.provider, self._session.get_provider_graph_assignment_info())

    def bound(self, feed: Feed) -> Bound:
        """The model made ready to run on one feed again and again, which stays where the model runs.

        Raises:
            InputError: the feed does not fit or holds what is no tensor of numbers, or the model fails on it.
            UsageError: the session makes a CUDA graph and is bound already.
        """
        if self._bound and self.options.get("enable_cuda_graph") == "1":  # it would write where the next feed lies
            raise UsageError("a session with a CUDA graph can be bound only once: make another session")
        values, self._bound = self._fitted(feed), True
        if odd := [n for n, v in values.items() if not isinstance(v, np.ndarray) or v.dtype == object]:
            raise InputError(f"input {odd[0]!r} cannot stay where the model runs: only tensors of numbers can")
        try:
            return Bound(self, self._session, values)
        except ERRORS as error:
            raise InputError(f"{FAILS}{brief(error)}") from error

    @property
    def remote(self) -> bool:
        """Whether what it computes lies in a memory of its own, from which reading takes long."""
        return self.provider != CPU

    def hold(self, feed: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Held]:
        """As `run`, of tensors alone, but what it computes stays where it is, and is fed from there.

        Args:
            feed: arrays, or what a session on the same device holds.
            outputs: names.

        Raises:
            InputError: the feed does not fit the inputs, or the model fails on it.
        """
        given = {n: held(v) for n, v in self._fitted(dict(feed)).items()}
        where = ("cuda", int(self.options.get("device_id", 0))) if self.provider == CUDA else ("cpu", 0)
        binding = self._session.io_binding()
        try:
            for name, value in given.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, *where)
            binding.synchronize_inputs()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except ERRORS as error:
            raise InputError(f"{FAILS}{brief(error)}") from error
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def _fitted(self, feed: Feed) -> Feed:
        """The feed with arrays in row-major order, once names and dtypes are known to fit."""
        required = {p.name: p for p in self.inputs}
        ports = required | {p.name: p for p in self.overridable}
        if unknown := [n for n in feed if n not in ports]:
            raise InputError(f"the model has no input {unknown[0]!r}; it has: {', '.join(required) or 'none'}")
        if missing := [n for n, p in required.items() if n not in feed and p.kind != "optional"]:
            raise InputError(f"the feed lacks the input {missing[0]!r}: give {', '.join(required)}")
        return {name: _array(ports[name], value) for name, value in feed.items()}

    def _run_raw(self, feed: Feed, names: list[str]) -> list[Any]:
        """Runs on raw memory, for element types that numpy lacks. Every input must be a tensor."""
        if odd := [n for n, v in feed.items() if not isinstance(v, np.ndarray)]:
            raise ValueError(f"input {odd[0]!r} is no tensor, which cannot be mixed with bfloat16 or float8")
        values = {n: _to_native(v) for n, v in feed.items()}  # `feed` keeps the memory alive during the run
        return [_from_native(v) for v in self._session.run_with_ort_values(names, values, self._plain)]


class Bound:
    """A model with a feed and results that stay where it runs: a run copies nothing and allocates no output.

    Results keep the addresses of a first run, which is what a CUDA graph takes for granted. Results that numpy cannot
    hold (bfloat16, float8) and strings are on the CPU.
    """

    def __init__(self, owner: Session, session: ort.InferenceSession, feed: Feed) -> None:
        self._owner, self._session, self._feed = owner, session, feed  # weights and the feed are lent memory
        self._binding = session.io_binding()
        for name, value in feed.items():
            self._binding.bind_ortvalue_input(name, _to_native(value))  # copied now, to where it is used
        number = int(owner.options.get("device_id", 0))
        for p in owner.outputs:
            there = owner.provider == CUDA and p.kind == "tensor" and p.dtype != object and not _is_foreign(p)
            self._binding.bind_output(p.name, *(("cuda", number) if there else ("cpu", 0)))
        session.run_with_iobinding(self._binding, _uncaptured())
        self._values = self._binding.get_outputs()
        for p, value in zip(owner.outputs, self._values, strict=True):
            if p.kind == "tensor" and p.dtype != object:
                self._binding.bind_ortvalue_output(p.name, value)

    def run(self) -> None:
        """Computes the results anew.

        Raises:
            InputError: the model fails.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except ERRORS as error:
            raise InputError(f"{FAILS}{brief(error)}") from error

    def outputs(self) -> dict[str, Any]:
        """Copies of the results of the last run, by name.

        Raises:
            InputError: a result cannot be read from Python.
        """
        try:
            values = [_from_native(v) for v in self._binding.get_outputs()]
        except ERRORS as error:
            raise InputError(brief(error)) from error
        return {p.name: np.array(v) for p, v in zip(self._owner.outputs, values, strict=True)}


def _uncaptured() -> ort.RunOptions:
    """Of runs from which no CUDA graph is made: what they are fed has another address every time."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


def _started(
    content: bytes, options: ort.SessionOptions, device: Device, cuda: Mapping[str, str]
) -> tuple[ort.InferenceSession, str]:
    """A session where `device` says, and why there."""
    works, reason = (False, "asked for") if device == "cpu" else cuda_works()
    if device == "cuda" and not works:
        raise MachineError(f"CUDA does not run here: {reason}")
    if works:
        try:
            session = on_cuda(content, options, cuda, alone=device == "cuda")
        except ERRORS as error:
            reason = f"CUDA does not load this model: {brief(error)}"
            if device == "cuda":
                raise InputError(f"onnxruntime does not load the model: {brief(error)}") from error
        else:
            if (provider := session.get_providers()[0]) == CUDA:
                return session, reason
            if device == "cuda":
                raise MachineError(
                    f"CUDA was asked for, but onnxruntime runs this model with {provider}: give --device cpu"
                )
            return session, f"onnxruntime runs this model with {provider}, although CUDA runs others"
    try:
        return create(content, options, [CPU]), reason
    except ERRORS as error:
        raise InputError(f"onnxruntime does not load the model: {brief(error)}") from error


def _ports(args: Sequence[Any]) -> tuple[Port, ...]:
    return tuple(port(a.name, a.type, a.shape) for a in args)


def port(name: str, written: str, shape: Sequence[int | str | None] | None) -> Port:
    """Reads "tensor(float)", "seq(tensor(int64))", "optional(tensor(bool))", and the like."""
    head = written.partition("(")[0]
    kinds: dict[str, Kind] = {"tensor": "tensor", "seq": "sequence", "optional": "optional"}
    kind = kinds.get(head, "other")
    inner = re.fullmatch(r"(?:optional\()?(?:seq\()?tensor\((\w+)\)*", written)
    element = _DTYPES.get(inner[1]) if inner else None
    extents = tuple(d if d != "" else None for d in shape or ()) if kind in {"tensor", "optional"} else None
    return Port(name, element if kind == "tensor" else None, extents, kind, element, written)


def _array(port: Port, value: Any) -> Any:
    if port.kind != "tensor" or isinstance(value, ort.OrtValue):
        return value
    if port.dtype is None:
        raise InputError(f"input {port.name!r} is a {port.type}, which cannot be fed from Python")
    array = np.asarray(value, order="C")
    textual = port.dtype == object and array.dtype.kind in "UT"
    if array.dtype == np.float32 and port.dtype in _HALVES:
        with np.errstate(over="ignore"):
            return array.astype(port.dtype)
    if array.dtype != port.dtype and not textual:
        raise InputError(f"input {port.name!r} is {array.dtype}, the model takes {port.dtype}")
    return array.astype(object) if textual else array


def held(value: Any) -> Held:
    """An array as a session holds it."""
    return value if isinstance(value, ort.OrtValue) else _to_native(np.asarray(value, order="C"))


def _is_foreign(port: Port) -> bool:
    return port.kind == "tensor" and (port.dtype is None or port.dtype in _NUMBERS)


def _to_native(array: np.ndarray) -> ort.OrtValue:
    if number := _NUMBERS.get(array.dtype):
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(f"u{array.itemsize}"), number)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _from_native(value: ort.OrtValue) -> Any:
    name = value.data_type().removeprefix("tensor(").removesuffix(")")
    if not value.is_tensor() or name not in _DTYPES:
        raise ValueError(f"an output is a {value.data_type()}, which cannot be read from Python")
    dtype = _DTYPES[name]
    if dtype not in _NUMBERS:
        return value.numpy()
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(raw), dtype).reshape(value.shape())
