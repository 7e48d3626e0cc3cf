"""Policies: from files, from options, and what is wrong with them in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphopt.errors import InputError, UsageError
from graphopt.gate.policy import Policy
from graphopt.gate.releases import oldest
from graphopt.gate.rules import RULES
from graphopt.gate.untold import Untold


def policy(given: Any, *own: str, **options: Any) -> Policy:
    return Policy.of(given, options, own)


def limits(found: Policy) -> dict[str, Any]:
    return {line.key: line.limit for line in found.lines}


def test_without_a_policy_values_must_be_the_same() -> None:
    assert limits(policy(None)) == {"interface": True, "equal": True}
    assert limits(policy({})) == {"interface": True, "equal": True, "synthetic": False}
    assert policy(None, atol=0.5).atol == 0.5


def test_a_file_and_a_table_of_a_pyproject(tmp_path: Path) -> None:
    (file := tmp_path / "policy.toml").write_text("max-bytes = 0.5\nmax-drop.accuracy = 0.01\nsynthetic = true")
    wanted = {"interface": True, "synthetic": True, "max-drop.accuracy": 0.01, "max-bytes": 0.5}
    assert limits(policy(file)) == limits(policy(str(file))) == wanted
    (project := tmp_path / "pyproject.toml").write_text(
        "[tool.graphopt.check]\nmax-bytes = 0.5\nsynthetic = true\n[tool.graphopt.check.max-drop]\naccuracy = 0.01\n"
    )
    assert limits(policy(project)) == wanted
    project.write_text("[tool.other]")
    with pytest.raises(InputError, match=r"has no table \[tool.graphopt.check\]: write the policy there"):
        policy(project)


def test_options_count_before_the_file() -> None:
    given = {"max-bytes": 0.5, "max-drop": {"accuracy": 0.1, "f1": 0.1}}
    found = limits(policy(given, **{"max-bytes": 0.7, "max-drop": ["accuracy=0.2"], "max-latency": None}))
    assert (found["max-bytes"], found["max-drop.accuracy"], found["max-drop.f1"]) == (0.7, 0.2, 0.1)
    assert "max-latency" not in found


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max-byte": 1}, "has 'max-byte', which is no line of a policy: did you mean 'max-bytes'"),
        ({"max_bytes": 1}, "did you mean 'max-bytes'"),
        ({"sqnr": 1}, "did you mean 'min-sqnr'"),
        ({"max-bytes": "half"}, "has max-bytes = 'half': give a number above 0"),
        ({"max-bytes": True}, "give a number above 0"),
        ({"max-bytes": float("nan")}, "give a number above 0"),
        ({"max-bytes": 10**400}, "give a number above 0"),
        ({"max-drop": {"accuracy": 10**400}}, "has no number: write accuracy=0.002"),
        ({"equal": 1}, "has equal = 1: give true or false"),
        ({"max-opset": 17.5}, "give a whole number of at least 0"),
        ({"min-agreement": 98}, "give a number from 0 to 1"),
        ({"operators": "Conv"}, "give a list of text"),
        ({"onnxruntime": "new"}, 'give a version as text, such as "1.16"'),
        ({"provider": "gpu"}, "give 'cpu' or 'cuda', or onnxruntime's name of a provider"),
        ({"max-drop": 0.1}, "give a table of metrics"),
        ({"max-drop": {"acuracy": 0.1}}, "has max-drop.acuracy: did you mean 'accuracy'"),
        ({"max-drop": {"accuracy": -1}}, "is no drop: give a number of at least 0"),
        ({"equal": False, "atol": 0.1}, "gives a tolerance, but equal = false: leave one of them out"),
        (3, "policy is 3: give the path of a TOML file, or keys and limits"),
    ],
)
def test_what_is_wrong_is_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        policy(given)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        policy(tmp_path / "no.toml")
    (file := tmp_path / "bad.toml").write_text("max-bytes = ")
    with pytest.raises(InputError, match="is not TOML"):
        policy(file)


def test_a_metric_of_ones_own_is_known_by_its_name() -> None:
    assert limits(policy({"max-drop": {"top5": 0.1}}, "top5"))["max-drop.top5"] == 0.1
    with pytest.raises(UsageError, match="Others need --metric"):
        policy({"max-drop": {"top5": 0.1}})


def test_rules_say_what_they_are() -> None:
    for key, rule in RULES.items():
        assert rule.key == key == key.lower()
        assert rule.help.endswith(".")
        assert (rule.judge is None) == (key in {"atol", "rtol"})


@pytest.mark.parametrize(
    ("ir_version", "opset", "operators", "release"),
    [
        (3, 7, [], "1.0"),
        (8, 17, ["Conv"], "1.12"),
        (10, 17, [], "1.18"),
        (9, 19, [], "1.15"),
        (10, 22, [], "1.21"),
        (8, 17, ["com.microsoft.MatMulNBits", "com.microsoft.Gelu"], "1.17"),
    ],
)
def test_the_oldest_runtime(ir_version: int, opset: int, operators: list[str], release: str) -> None:
    assert oldest(ir_version, {"ai.onnx": opset, "com.microsoft": 1}, operators) == release


@pytest.mark.parametrize(
    ("ir_version", "opsets", "operators"),
    [(8, {"ai.onnx": 99}, []), (99, {"ai.onnx": 17}, []), (8, {"some.where": 1}, []), (8, {}, ["com.microsoft.New"])],
)
def test_a_runtime_that_is_not_known(ir_version: int, opsets: dict[str, int], operators: list[str]) -> None:
    with pytest.raises(Untold):
        oldest(ir_version, opsets, operators)
