"""What is shipped: public names, their documentation, the version, the markers."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib import metadata, resources
from types import ModuleType

import pytest

import graphopt
from tests.end_to_end.support import ROOT, Answer, command
from tests.end_to_end.support import graphopt as process

MODULES = sorted(
    m.name for m in pkgutil.walk_packages(graphopt.__path__, "graphopt.") if not m.name.endswith("__main__")
)


def modules() -> list[ModuleType]:
    return [importlib.import_module(name) for name in MODULES]


NAMES = graphopt.__all__


def test_all_is_sorted() -> None:
    assert graphopt.__all__ == sorted(graphopt.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_all_is_a_verb_or_a_class_however_much_was_imported(name: str) -> None:
    modules()
    assert callable(getattr(graphopt, name))


def test_nothing_else_is_public() -> None:
    code = "import graphopt; print(*[n for n in vars(graphopt) if not n.startswith('_')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    ours = {"annotations", "defer", "deferred", "errors", "importlib", "TYPE_CHECKING", "Any"}
    assert set(done.stdout.split()) <= {*graphopt.__all__, *ours}
    assert dir(graphopt) == graphopt.__all__


def test_a_star_import_gives_all_of_it() -> None:
    names: dict[str, object] = {}
    exec("from graphopt import *", names)  # noqa: S102
    assert set(graphopt.__all__) == names.keys() - {"__builtins__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'graphopt' has no attribute 'optimise'"):
        graphopt.optimise  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, graphopt; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"numpy", "onnx", "onnx_ir", "onnxruntime", "typer"} & set(done.stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented(name: str) -> None:
    found = getattr(graphopt, name)
    assert inspect.getdoc(found)
    if inspect.isclass(found):
        methods = [m for n, m in vars(found).items() if not n.startswith("_") and inspect.isfunction(m)]
        assert all(inspect.getdoc(m) for m in methods)
    else:
        parameters = inspect.signature(found).parameters
        assert all(f"{p}: " in (inspect.getdoc(found) or "") for p in parameters)


def test_every_module_has_a_docstring_and_names_what_exists() -> None:
    for module in modules():
        assert module.__doc__, module.__name__
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_public_functions_and_classes_of_every_module_are_documented() -> None:
    for module in modules():
        for name, found in vars(module).items():
            own = getattr(found, "__module__", None) == module.__name__
            if own and not name.startswith("_") and (inspect.isfunction(found) or inspect.isclass(found)):
                assert found.__doc__, f"{module.__name__}.{name}"


def test_types_are_shipped() -> None:
    assert resources.files("graphopt").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_installed_package() -> None:
    version = metadata.version("graphopt")
    assert process("--version") == Answer(0, f"{version}\n", "")
    assert command("--version").out == f"{version}\n"


def test_the_package_can_be_run_as_a_module() -> None:
    answer = process("--help")
    assert answer.code == 0
    assert answer.out.startswith("Usage: ")
    for verb in ("optimize", "inspect", "check", "bench", "passes", "doctor"):
        assert verb in answer.out


def test_the_command_is_installed_under_its_name() -> None:
    (entry,) = (e for e in metadata.entry_points(group="console_scripts") if e.name == "graphopt")
    assert entry.value == "graphopt.cli:main"
