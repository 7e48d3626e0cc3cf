"""What a report's JSON may look like, as JSON Schema, told by its dataclasses."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from graphopt.report.data import SCHEMA

__all__ = ["schema"]

_PLAIN: Mapping[Any, dict[str, Any]] = {
    Any: {},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},  # null stands for what is not finite
    str: {"type": "string"},
    type(None): {"type": "null"},
}


def schema(document: type) -> dict[str, Any]:
    """JSON Schema of what `to_json` writes of a document.

    Further keys are allowed: one that comes is no new version of a report, one that goes or means something else is.
    """
    found: dict[str, Any] = {}
    top = _object(document, found)
    top["properties"]["schema"] = {"const": SCHEMA}
    top["required"].append("schema")
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": document.__name__}
    return draft | top | {"$defs": found}


def _object(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(kind._fields)
    properties = {name: _told(hints[name], found) for name in fields}
    return {"type": "object", "properties": properties, "required": fields}


def _told(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, inside = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Literal:
        return {"enum": list(inside)}
    if origin in {Union, types.UnionType}:
        return {"anyOf": [_told(one, found) for one in inside]}
    if origin is tuple and inside[1:] != (...,):
        return {"type": "array", "prefixItems": [_told(one, found) for one in inside]}
    if origin in {tuple, list}:
        return {"type": "array", "items": _told(inside[0], found)}
    if origin in {dict, Mapping}:
        return {"type": "object", "additionalProperties": _told(inside[1], found)}
    if not (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")):
        raise TypeError(f"{hint} has no form in JSON")
    if hint.__name__ not in found:
        found[hint.__name__] = {}  # it may hold others of its kind
        found[hint.__name__] = _object(hint, found)
    return {"$ref": f"#/$defs/{hint.__name__}"}
