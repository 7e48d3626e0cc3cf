"""The exception tree is what its docstring draws."""

from __future__ import annotations

import inspect
import re

import pytest

from graphopt import errors
from graphopt.errors import GraphoptError

KINDS = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, GraphoptError)]


def test_every_class_is_exported_and_a_graphopt_error() -> None:
    assert sorted(k.__name__ for k in KINDS) == errors.__all__
    assert all(issubclass(getattr(errors, name), GraphoptError) for name in errors.__all__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_the_drawing_has_each_class_with_its_exit_code(kind: type[GraphoptError]) -> None:
    drawn = dict(re.findall(r"(\w+) {2,}(\d+) ", errors.__doc__ or ""))
    assert drawn[kind.__name__] == str(kind.exit_code)


def test_the_drawing_shows_who_inherits_from_whom() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.search(r" {2,}\d+ ", line)]
    depths = {m[2]: len(m[1]) // 4 for line in lines if (m := re.match(r"([├└│─ ]*)(\w+)", line))}
    assert depths == {k.__name__: len(k.__mro__) - len(GraphoptError.__mro__) for k in KINDS}
    parent = ""
    for line in lines:
        name = re.sub(r"^[├└│─ ]*", "", line).split()[0]
        if depths[name] == 2:
            assert parent in {k.__name__ for k in getattr(errors, name).__mro__}
        else:
            parent = name


def test_codes_are_those_of_the_command_line() -> None:
    assert {k.exit_code for k in KINDS} == {1, 2, 3, 70}
