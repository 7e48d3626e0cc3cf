"""Weights that lie somewhere else: outside of the model's folder, nowhere, or not where they claim."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import onnx
from onnx import TensorProto, helper

from tests.corpus.case import Hostile, Place, blob, external, graph, outsource, with_tensor

__all__ = ["CASES"]

_ESCAPE = {"location": "../outside/secret.bin"}


def _linked(place: Place, make: Callable[[Place], object], location: str = "weights.bin") -> onnx.ModelProto:
    """A model whose weights are at `location`, which `make` puts there."""
    make(place)
    return external(location=location)


def _data(place: Place, **entries: str) -> onnx.ModelProto:
    """A model with a file of the right size, and entries that do not fit it."""
    blob(place)
    return external(**{"location": "weights.bin"} | entries)


def _twice(place: Place, first: str, second: str) -> onnx.ModelProto:
    """The location is given twice: who checks the one may open the other."""
    blob(place)
    model = external(location=first)
    model.graph.initializer[0].external_data.add(key="location", value=second)
    return model


def _chain(place: Place) -> None:
    (place.inner / "b").symlink_to(place.secret)
    (place.inner / "weights.bin").symlink_to("b")


def _folder_chain(place: Place) -> None:
    (place.inner / "d").symlink_to(place.outside)
    (place.inner / "e").symlink_to("d")


def _socket(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(place.inner / "weights.bin"))


def _claim(place: Place, dims: list[int], size: int) -> onnx.ModelProto:
    """Dims that ask for more, or less, than there is; the file takes no room on the disk."""
    with blob(place).open("r+b") as file:
        file.truncate(size)
    model = external(location="weights.bin")
    model.graph.initializer[0].dims[:] = dims
    return model


def _both(place: Place) -> onnx.ModelProto:
    model = _data(place)
    model.graph.initializer[0].raw_data = b"\0" * 1200
    return model


def _typed(place: Place, data_type: int) -> onnx.ModelProto:
    model = _data(place)
    model.graph.initializer[0].data_type = data_type
    return model


def _hidden() -> TensorProto:
    return outsource(TensorProto(name="hidden", dims=[300], data_type=1), **_ESCAPE)


def _amplified(place: Place) -> onnx.ModelProto:
    """Many weights that are the same bytes: 4 GB out of 16 MB."""
    with (place.inner / "w.bin").open("wb") as file:
        file.truncate(1 << 24)
    model = graph(f"y = Sum(x, {', '.join(f's{i}' for i in range(256))})")
    for i in range(256):
        weight = model.graph.initializer.add(
            name=f"w{i}", data_type=1, dims=[1 << 22], data_location=TensorProto.EXTERNAL
        )
        weight.external_data.add(key="location", value="w.bin")
        model.graph.node.insert(0, onnx.helper.make_node("ReduceMax", [f"w{i}"], [f"s{i}"], keepdims=0))
    return model


def _in_attribute() -> onnx.ModelProto:
    model = graph("g (float[300] x) => (float[300] y) { y = Add(x, w) }")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=_hidden()))
    return model


def _in_list_of_tensors() -> onnx.ModelProto:
    model = graph("y = Relu(x)")
    model.graph.node[0].attribute.append(helper.make_attribute("notes", [_hidden()]))
    return model


def _in_sparse(part: str) -> onnx.ModelProto:
    model = graph("g (float[300] x) => (float[300] y) { y = Add(x, w) }")
    good = TensorProto(name="w", dims=[300], data_type=1, raw_data=bytes(1200))
    index = TensorProto(dims=[300], data_type=7, int64_data=list(range(300)))
    made = onnx.SparseTensorProto(dims=[300], values=good, indices=index)
    target = made.values if part == "values" else made.indices
    target.ClearField("raw_data")
    target.ClearField("int64_data")
    outsource(target, **_ESCAPE)
    model.graph.sparse_initializer.append(made)
    return model


def _body(model: onnx.ModelProto) -> onnx.GraphProto:
    return model.graph.node[0].attribute[0].g


_IF = """g (bool c, float[300] x) => (float[300] y) {
  y = If(c) <then_branch = t () => (float[300] p) { p = Add(x, w) }, else_branch = e () => (float[300] q) { q = Abs(x) }>
}"""


def _in_body(*, attribute: bool) -> onnx.ModelProto:
    model = graph(_IF)
    tensor = _hidden()
    if attribute:
        _body(model).node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        tensor.name = "w"
        _body(model).initializer.append(tensor)
    return model


def _in_sparse_of_body() -> onnx.ModelProto:
    model = graph(_IF)
    made = _in_sparse("values").graph.sparse_initializer[0]
    _body(model).sparse_initializer.append(made)
    return model


_CALL = """<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
g (float[300] x) => (float[300] y) { y = f.h(x) }
<domain: "f", opset_import: ["" : 21]> h (a) => (b) { b = Add(a, w) }"""


def _in_function(*, called: bool) -> onnx.ModelProto:
    model = graph(_CALL)
    model.functions[0].node.insert(0, helper.make_node("Constant", [], ["w"], value=_hidden()))
    if not called:
        model.graph.node[0].CopyFrom(helper.make_node("Relu", ["x"], ["y"]))
    return model


def _in_training(part: str) -> onnx.ModelProto:
    model = graph("y = Relu(x)")
    getattr(model.training_info.add(), part).initializer.append(_hidden())
    return model


def _at(location: str) -> Callable[[Place], onnx.ModelProto]:
    return lambda place: external(location=location.format(inner=place.inner, outside=place.outside))


def _entries(entries: dict[str, str]) -> Callable[[Place], onnx.ModelProto]:
    return lambda place: _data(place, **entries)


_LOCATIONS = {
    "dotdot": ("../outside/secret.bin", "CVE-2022-25882: the parent folder"),
    "dotdot_nested": ("a/../../outside/secret.bin", "CVE-2024-27318: up again behind a folder"),
    "dotdot_deep": ("../" * 40 + "etc/passwd", "more steps up than there are folders"),
    "dotdot_slashes": ("..//outside///secret.bin", "slashes in a row"),
    "dotdot_dots": ("./.././outside/./secret.bin", "dots in between"),
    "absolute": ("{outside}/secret.bin", "an absolute path"),
    "absolute_inside": ("{inner}/weights.bin", "an absolute path to the model's own folder"),
    "absolute_slashes": ("//{outside}/secret.bin", "two slashes in front"),
    "environment": ("/proc/self/environ", "the process's own secrets"),
    "device": ("/dev/zero", "it never ends"),
    "stdin": ("/dev/stdin", "it blocks"),
    "home": ("~/secret.bin", "the home folder"),
    "variable": ("$HOME/secret.bin", "a variable of the shell"),
    "url": ("file:///etc/passwd", "a URL"),
    "remote": ("https://localhost:1/weights.bin", "a URL that leaves the machine"),
    "backslashes": ("..\\outside\\secret.bin", "the other system's separators"),
    "drive": ("C:\\secret.bin", "a drive"),
    "zero_byte": ("weights.bin\0/../../outside/secret.bin", "what C ends at the zero, Python does not"),
    "newline": ("weights\nerror: all is well", "a second line in the message"),
    "escape": ("\x1b[2J\x1b]0;title\x07", "it repaints the terminal"),
    "overlong": ("a" * 5000, "longer than a name may be"),
    "deep": ("a/" * 3000 + "b", "longer than a path may be"),
    "dot": (".", "the folder itself"),
    "dotdot_alone": ("..", "the folder above"),
    "blank": (" ", "a name that cannot be seen"),
    "empty": ("", "no name at all"),
}

_ENTRIES = {
    "offset_negative": {"offset": "-4"},
    "offset_huge": {"offset": str(2**63)},
    "offset_overflows": {"offset": str(2**64 - 1200)},
    "offset_past_end": {"offset": "4"},
    "offset_float": {"offset": "1e0"},
    "offset_hex": {"offset": "0x0"},
    "offset_blank": {"offset": " 0"},
    "offset_signed": {"offset": "+0"},
    "offset_underscore": {"offset": "0_0"},
    "offset_arabic": {"offset": "٠"},
    "offset_superscript": {"offset": "⁰"},
    "offset_many_digits": {"offset": "9" * 5000},
    "length_negative": {"length": "-1200"},
    "length_short": {"length": "1196"},
    "length_long": {"length": "1204"},
    "length_zero": {"length": "0"},
    "length_huge": {"length": str(2**64 + 1200)},
    "length_many_digits": {"length": "1" * 5000},
}

CASES = (
    *(Hostile(f"external_{n}", why, _at(where)) for n, (where, why) in _LOCATIONS.items()),
    *(
        Hostile(f"external_{n}", "CVE-2026-34445: numbers that do not fit the file", _entries(entries))
        for n, entries in _ENTRIES.items()
    ),
    Hostile(
        "external_unknown_key",
        "CVE-2026-34445: keys become attributes of a Python object",
        lambda p: _data(p, __class__="x", base_dir="/", path="/etc/passwd"),
        passes=True,
    ),
    Hostile(
        "external_location_twice",
        "the second location leads out",
        lambda p: _twice(p, "weights.bin", "../outside/secret.bin"),
    ),
    Hostile(
        "external_location_twice_reversed",
        "the first location leads out",
        lambda p: _twice(p, "../outside/secret.bin", "weights.bin"),
        passes=True,
    ),
    Hostile(
        "external_link",
        "a link to a file outside",
        lambda p: _linked(p, lambda q: (q.inner / "weights.bin").symlink_to(q.secret)),
    ),
    Hostile(
        "external_link_relative",
        "a relative link to a file outside",
        lambda p: _linked(p, lambda q: (q.inner / "weights.bin").symlink_to("../outside/secret.bin")),
    ),
    Hostile("external_link_chain", "a link to a link to a file outside", lambda p: _linked(p, _chain)),
    Hostile(
        "external_link_loop",
        "a link to itself",
        lambda p: _linked(p, lambda q: (q.inner / "weights.bin").symlink_to("weights.bin")),
    ),
    Hostile(
        "external_link_dangling",
        "a link to nothing",
        lambda p: _linked(p, lambda q: (q.inner / "weights.bin").symlink_to(q.outside / "nothing")),
    ),
    Hostile(
        "external_link_device",
        "a link to a device that never ends",
        lambda p: _linked(p, lambda q: (q.inner / "weights.bin").symlink_to("/dev/zero")),
    ),
    Hostile(
        "external_folder_link",
        "CVE-2026-27489: the folder on the way is a link",
        lambda p: _linked(p, lambda q: (q.inner / "d").symlink_to(q.outside), "d/secret.bin"),
    ),
    Hostile("external_folder_link_chain", "two such folders", lambda p: _linked(p, _folder_chain, "e/secret.bin")),
    Hostile(
        "external_folder_link_up",
        "a link to the folder above, which every text check lets pass",
        lambda p: _linked(p, lambda q: (q.inner / "d").symlink_to(".."), "d/outside/secret.bin"),
    ),
    Hostile(
        "external_hard_link",
        "CVE-2026-34447: a second name of a file outside",
        lambda p: _linked(p, lambda q: (q.inner / "weights.bin").hardlink_to(q.secret)),
    ),
    Hostile(
        "external_pipe",
        "a pipe, which blocks whoever opens it",
        lambda p: _linked(p, lambda q: os.mkfifo(q.inner / "weights.bin")),
    ),
    Hostile("external_socket", "a socket", lambda p: _linked(p, _socket)),
    Hostile("external_is_folder", "a folder", lambda p: _linked(p, lambda q: (q.inner / "weights.bin").mkdir())),
    Hostile("external_file_as_folder", "a file on the way", lambda p: _linked(p, blob, "weights.bin/more")),
    Hostile("external_empty_file", "nothing in it", lambda p: _claim(p, [300], 0)),
    Hostile("external_four_terabytes", "dims of 4 TiB over a file of a kilobyte", lambda p: _claim(p, [1 << 40], 1200)),
    Hostile(
        "external_three_gigabytes", "more than a protobuf holds, and not there", lambda p: _claim(p, [3 << 28], 1200)
    ),
    Hostile(
        "external_dims_negative", "two negative extents make a positive size", lambda p: _claim(p, [-15, -20], 1200)
    ),
    Hostile("external_dims_overflow", "a product that is 0 in 64 bits", lambda p: _claim(p, [1 << 32, 1 << 32], 1200)),
    Hostile(
        "external_dims_smaller",
        "the file has more than the dims ask for",
        lambda p: _claim(p, [300], 1 << 20),
        passes=True,
    ),
    Hostile("external_and_inside", "the data is in the file as well", _both),
    Hostile("external_strings", "text cannot be outside", lambda p: _typed(p, TensorProto.STRING)),
    Hostile("external_of_no_type", "an element type that does not exist", lambda p: _typed(p, 999)),
    Hostile("external_without_entries", "no location, no offset, nothing", external()),
    Hostile("external_amplified", "256 weights are the same 16 MB", _amplified),
    Hostile("external_in_attribute", "a Constant's value", _in_attribute()),
    Hostile("external_in_list", "an attribute that no operator has", _in_list_of_tensors()),
    Hostile("external_in_sparse_values", "sparse weights, which a runtime forgot to check", _in_sparse("values")),
    Hostile("external_in_sparse_indices", "their indices", _in_sparse("indices")),
    Hostile("external_in_body", "an initializer of a branch", _in_body(attribute=False)),
    Hostile("external_in_body_attribute", "a Constant of a branch", _in_body(attribute=True)),
    Hostile("external_in_body_sparse", "a sparse initializer of a branch", _in_sparse_of_body()),
    Hostile("external_in_function", "a Constant in a function", _in_function(called=True)),
    Hostile("external_in_idle_function", "a Constant in a function that nobody calls", _in_function(called=False)),
    Hostile("external_in_training", "how training begins", _in_training("initialization")),
    Hostile("external_in_training_step", "a step of training", _in_training("algorithm")),
    Hostile(
        "external_flag_alone",
        "entries without the flag that says so",
        with_tensor(external_data=[onnx.StringStringEntryProto(key="location", value="../outside/secret.bin")]),
    ),
)
