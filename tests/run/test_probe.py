from __future__ import annotations

import sys
from importlib import metadata

import pytest

from graphopt.run.finding import Finding
from graphopt.run.probe import probe


def texts(findings: tuple[Finding, ...], level: str) -> str:
    return "\n".join(f"{f.text} | {f.advice}" for f in findings if f.level == level)


def install(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Lets some distributions look installed, or absent."""
    real = metadata.version

    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), "real")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return real(name) if found == "real" else found

    monkeypatch.setattr("importlib.metadata.version", version)


def test_this_installation_runs_models() -> None:
    findings = probe()
    assert "error" not in {f.level for f in findings}, texts(findings, "error")
    fine = texts(findings, "ok")
    assert "Python 3." in fine
    assert "CPU cores usable" in fine
    assert "onnx-ir " in fine
    assert "CPUExecutionProvider" in fine
    assert "CUDA" in fine + texts(findings, "warn")
    assert all(f.advice for f in findings if f.level != "ok")
    assert not any(f.advice for f in findings if f.level == "ok")
    assert findings == probe()


def test_both_runtimes_at_once_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.24.0", onnxruntime_gpu="1.31.1")
    assert "both onnxruntime and onnxruntime-gpu are installed" in texts(probe(), "error")


def test_a_half_uninstalled_runtime_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime=None, onnxruntime_gpu="1.31.1")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = texts(probe(), "error")
    assert "onnxruntime-gpu is installed but broken" in found
    assert "--force-reinstall --no-deps onnxruntime-gpu" in found
    install(monkeypatch, onnxruntime=None, onnxruntime_gpu=None)
    assert "onnxruntime is not installed" in texts(probe(), "error")


def test_another_module_than_the_package_says_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime=None, onnxruntime_gpu="0.1")
    assert "onnxruntime-gpu 0.1, but the module that loads is" in texts(probe(), "warn")
    install(monkeypatch, onnxruntime=None, onnxruntime_gpu=None)
    assert "of a build that pip does not know" in texts(probe(), "ok")


def test_a_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxsim=None, graphopt=None)
    assert "onnxsim is not installed | pip install onnxsim" in texts(probe(), "error")
    assert "graphopt runs from a folder" in texts(probe(), "warn")


@pytest.mark.parametrize("works", [False, True])
def test_cuda_is_told_by_a_run(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:  # noqa: FBT001
    monkeypatch.setattr("graphopt.run.probe_cuda.cuda_works", lambda: (works, "told by a run"))
    assert "told by a run" in texts(probe(), "ok" if works else "warn")
