"""The gate as people put it up: the README's job, hook and test, run in a repository of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
import xmlschema
import yaml  # noqa: TID251 - what the README says to paste
from markdown_it import MarkdownIt

import graphopt
from graphopt.gate.rules import RULES
from tests.bench.nets import NETS
from tests.end_to_end.support import DATA, MODELS, ROOT, assert_fails, command, contents, tensor

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCHEMAS = ROOT / "tests" / "report"
TABLE = re.search(r"```toml\n(\[tool\.graphopt\.check\]\n.*?)```", README, re.DOTALL)
SNIPPETS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
JOB: Any = next(s["jobs"]["gate"] for s in SNIPPETS if "jobs" in s)
HOOK: Any = next(s["repos"][0]["hooks"][0] for s in SNIPPETS if "repos" in s)
TEST = re.search(r"<!-- pytest -->\n```python\n(.*?)```", README, re.DOTALL)
SOURCE = MODELS / "digits_mobilenet.onnx"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a reference, a good and a bad candidate, data and a policy."""
    folder = tmp_path_factory.mktemp("scratch")
    subprocess.run(["git", "init", "-q", folder], check=True)  # noqa: S607 - the user's
    shutil.copy(SOURCE, folder / "reference.onnx")
    shutil.copy(DATA, folder / "samples.npz")
    (good := folder / "good").mkdir()
    (bad := folder / "bad").mkdir()
    passes = ["clean", "fuse-linear"]
    made = graphopt.optimize(folder / "reference.onnx", passes=passes, data="random:8", device="cpu", threads=1)
    model = onnx.load(made.save(good / "model.onnx"))
    weight = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    weight.CopyFrom(tensor(weight.name, -contents(weight)))
    onnx.save(model, bad / "model.onnx")
    assert TABLE
    (folder / "pyproject.toml").write_text(TABLE[1], encoding="utf-8")
    return folder


@pytest.fixture(params=["good", "bad"])
def place(request: pytest.FixtureRequest, scratch: Path) -> tuple[Path, bool]:
    """The repository with one of the candidates in it, and whether that is the good one."""
    shutil.copy(scratch / request.param / "model.onnx", scratch / "model.onnx")
    return scratch, request.param == "good"


def shell(line: str, folder: Path, **more: str) -> int:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(["bash", "-euc", line], cwd=folder, env=env, check=False, capture_output=True).returncode  # noqa: S607


def test_the_job_of_the_readme(place: tuple[Path, bool]) -> None:
    folder, good = place
    for name in ("junit.xml", "graphopt.sarif", "summary.md", "step.md"):
        (folder / name).unlink(missing_ok=True)
    code = 0
    for step in JOB["steps"]:
        if "run" not in step or "pip install" in step["run"] or (code and step.get("if") != "always()"):
            continue
        code = shell(step["run"], folder, GITHUB_STEP_SUMMARY="step.md") or code
    assert code == (0 if good else 1)
    xmlschema.XMLSchema(SCHEMAS / "junit.xsd").validate(folder / "junit.xml")
    schema = json.loads((SCHEMAS / "sarif" / "sarif-schema-2.1.0.json").read_text())
    sarif = json.loads((folder / "graphopt.sarif").read_text())
    jsonschema.Draft7Validator(schema).validate(sarif)
    failed = {r["ruleId"] for r in sarif["runs"][0]["results"] if r["kind"] == "fail"}
    assert failed == (set() if good else {"max-drop", "min-agreement", "min-sqnr"})
    assert sarif["runs"][0]["artifacts"][0]["location"]["uri"] == "model.onnx"
    html = str(MarkdownIt().enable("table").render((folder / "step.md").read_text()))
    assert html.count("<tr>") == 12
    assert ("❌" in html) != good


def test_the_hook(place: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, good = place
    monkeypatch.chdir(folder)
    (offered,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert offered["id"] == HOOK["id"]
    assert re.search(offered["files"], "model.onnx")
    assert offered["pass_filenames"] is False
    program, *words = shlex.split(offered["entry"])
    assert program == "graphopt"
    assert command(*words, *HOOK["args"]).code == (0 if good else 1)


def test_the_test_of_the_readme(place: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, good = place
    monkeypatch.chdir(folder)
    assert TEST
    names: dict[str, Any] = {}
    exec(TEST[1], names)  # noqa: S102 - what the README says to paste
    (test,) = (f for n, f in names.items() if n.startswith("test_"))
    if good:
        test()
        return
    with pytest.raises(AssertionError, match=r"model.onnx is not reference.onnx; max-drop.accuracy: falls by 0\.\d+"):
        test()


def test_the_readme_lists_every_line() -> None:
    for rule in RULES.values():
        assert f"| `{rule.key}` | {rule.help} |" in README
    quality = ", ".join(f"`{key}`" for key, rule in RULES.items() if rule.quality)
    assert f"does ({quality})" in " ".join(README.split())
    shown = "".join(command("check", "--help").out.replace("│", "").split())
    assert all(key in shown for key in RULES)


@pytest.mark.parametrize("option", ["--junit", "--sarif", "--markdown"])
def test_reports_take_no_file_that_is_needed(option: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scratch)
    words = ("check", "reference.onnx", "good/model.onnx", "--policy", "pyproject.toml", "--data", "samples.npz")
    for name, what in (
        ("reference.onnx", "REFERENCE"),
        ("good/model.onnx", "CANDIDATE"),
        ("pyproject.toml", "the policy"),
        ("samples.npz", "the data"),
    ):
        assert_fails(command(*words, option, name), 2, f"{option} {name} is {what} itself: give another file")


def test_a_policy_that_makes_no_sense(scratch: Path, tmp_path: Path) -> None:
    (policy := tmp_path / "p.toml").write_text("max-byte = 0.5")
    words = ("check", scratch / "reference.onnx", scratch / "reference.onnx", "--policy")
    assert_fails(command(*words, policy), 2, "p.toml has 'max-byte'", "did you mean 'max-bytes'?")
    assert_fails(command(*words, tmp_path / "no.toml"), 3, "no.toml cannot be read")


PEAK = """
import sys
import numpy as np
import graphopt

def feeds():
    draw = np.random.default_rng(0)
    for _ in range(1000):
        yield {"x": draw.standard_normal((1, 3, 224, 224), np.float32)}

assert graphopt.check(*sys.argv[1:], data=feeds, policy={"equal": True, "min-sqnr": 30}, device="cpu", threads=1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory that was taken")
def test_two_models_of_100_mb_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    content = NETS["resnet50"]().SerializeToString()
    assert len(content) > 100_000_000
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        path.write_bytes(content)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], env=env, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 1 << 20, "KiB"
