"""Names that are meant for a terminal, a web page, a spreadsheet or a file system, and not for a reader."""

from __future__ import annotations

import onnx

from tests.corpus.case import Hostile, graph

__all__ = ["CASES", "NAMES"]

NAMES = {
    "controls": "a\r\n\t\b\x7fb",
    "ansi": "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b1m",
    "bidirectional": "a\u202egnp.exe\u2066\u200f",
    "invisible": "a\u200b\ufeff\u00ad",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&",
    "markdown": "`code` [link](javascript:alert(1)) | **bold** |",
    "markup": "[red]x[/red] [/] [link=file:///etc/passwd]y[/link]",
    "format": "%s%n{0}{x.__class__}${HOME}",
    "formula": "=cmd|' /C calc'!A1",
    "path": "../../outside/made",
    "absolute": "/etc/passwd",
    "zero": "a\0b",
    "newline_error": "a\nerror: nothing\n",
    "overlong": "n" * 1_000_000,
    "emoji": "🦔" * 100,
    "combining": "Z\u0301\u0302\u0303\u0304" * 50,
    "quotes": "\"'`\\",
    "blank": " ",
    "option": "--force",
    "number": "0",
}


def _named(name: str) -> onnx.ModelProto:
    """A model in which everything that can have a name has this one, or begins with it."""
    model = graph("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Relu(a) y = Softmax <axis = 1>(b) }")
    new = {n: f"{name}{n}" for n in "xaby"}
    for port in (*model.graph.input, *model.graph.output):
        port.name = new[port.name]
        port.doc_string = name
        port.type.tensor_type.shape.dim[0].dim_param = name
    for index, node in enumerate(model.graph.node):
        node.name = f"{name}{index}"
        node.doc_string = name
        node.input[:] = [new[i] for i in node.input]
        node.output[:] = [new[i] for i in node.output]
        node.metadata_props.add(key=name, value=name)
    model.graph.name = name
    model.metadata_props.add(key=name, value=name)
    for field in ("doc_string", "producer_name", "producer_version", "domain"):
        setattr(model, field, name)
    return model


def _foreign(name: str) -> onnx.ModelProto:
    """An operator and a domain of such names, which a refusal has to tell."""
    model = graph("y = Relu(x)")
    model.graph.node[0].op_type = name
    model.graph.node[0].domain = name
    model.opset_import.add(domain=name, version=1)
    return model


def _invalid() -> bytes:
    """Names that are no UTF-8, which protobuf hands on as they are."""
    content = _named("QQQQ").SerializeToString()
    return content.replace(b"QQQQ", b"\xff\xfe\x80\xc3")


def _invalid_text(part: str) -> bytes:
    """Such bytes in one place."""
    model = graph("y = Relu(x)")
    match part:
        case "node":
            model.graph.node[0].name = "QQQQ"
        case "producer":
            model.producer_name = "QQQQ"
        case "metadata":
            model.metadata_props.add(key="QQQQ", value="QQQQ")
    return model.SerializeToString().replace(b"QQQQ", b"\xff\xfe\x80\xc3")


CASES = (
    *(
        Hostile(f"names_{n}", "what models say ends up in front of people", _named(name), passes=True)
        for n, name in NAMES.items()
    ),
    *(
        Hostile(f"operator_{n}", "a refusal tells what the operator is called", _foreign(NAMES[n]), passes=True)
        for n in ("ansi", "bidirectional", "markup", "newline_error", "overlong", "zero", "format")
    ),
    *(
        Hostile(f"invalid_text_{part}", "bytes that are no text, in one place", _invalid_text(part), passes=True)
        for part in ("node", "producer", "metadata")
    ),
    Hostile("names_invalid", "bytes that are no text", _invalid(), passes=True),
)
