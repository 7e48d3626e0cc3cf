"""Where results and reports may not go."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

from graphopt.errors import MachineError, UsageError
from graphopt.graph.load import load
from graphopt.report.files import beside, refuse_out, refuse_side_files
from tests.end_to_end.support import net, stored


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(net(), tmp_path / "net.onnx")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A model with its weights beside it."""
    onnx.save(net(), tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    return tmp_path / "big.onnx"


@pytest.mark.parametrize(
    ("name", "result"), [("a.onnx", "a.opt.onnx"), ("a", "a.opt.onnx"), ("a.b.onnx", "a.b.opt.onnx")]
)
def test_the_result_stands_beside_the_model(name: str, result: str) -> None:
    assert beside(Path("x") / name) == Path("x") / result


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("net.onnx", "is MODEL itself"),
        ("x/../net.onnx", "is MODEL itself"),
        ("same", "is MODEL itself"),
        ("link", "is MODEL itself"),
        ("dangling", "is a symbolic link"),
        ("x", "is a folder"),
        ("fifo", "is a device or a pipe"),
        (os.devnull, "is a device or a pipe"),
        ("a\0b", "is no name that a file can have"),
    ],
)
def test_a_report_destroys_nothing(name: str, reason: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "same").hardlink_to(model)
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match=reason):
        refuse_side_files({"--json": tmp_path / name}, {"MODEL": model}, {})


def test_a_report_is_neither_out_nor_another_report(model: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    with pytest.raises(UsageError, match=r"--json .*new is OUT itself"):
        refuse_side_files({"--json": new}, {"MODEL": model}, {"OUT": new})
    with pytest.raises(UsageError, match=r"--save-recipe .*new is --json itself"):
        refuse_side_files({"--json": new, "--save-recipe": new}, {"MODEL": model}, {})


def test_a_report_does_not_replace_weights(outside: Path, tmp_path: Path) -> None:
    assert load(outside).external == (tmp_path / "big.data",)
    with pytest.raises(UsageError, match=r"holds the weights of .*big\.onnx"):
        refuse_side_files({"--json": tmp_path / "big.data"}, {"REFERENCE": outside}, {})


def test_a_report_may_replace_an_older_one(model: Path, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").touch()
    models = {"REFERENCE": model, "CANDIDATE": outside, "OTHER": None}
    refuse_side_files({"--json": tmp_path / "report.json", "--save-recipe": None}, models, {"OUT": tmp_path / "out"})
    refuse_side_files({"--json": Path("-")}, models, {})
    with pytest.raises(UsageError, match="--junit - is no file, and only --json goes to stdout"):
        refuse_side_files({"--junit": Path("-")}, models, {})


@pytest.mark.parametrize(
    ("where", "reason"), [("no/report", "No such file or directory"), ("net.onnx/report", "Not a directory")]
)
def test_a_folder_that_is_not_there(where: str, reason: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=f"cannot be written: {reason}"):
        refuse_side_files({"--json": tmp_path / where}, {"MODEL": model}, {})
    with pytest.raises(MachineError, match=f"cannot be written: {reason}"):
        refuse_out(tmp_path / where, model)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(MachineError, match="cannot be written: Permission denied"):
        refuse_out(tmp_path / "closed" / "out", model)


@pytest.mark.parametrize("force", [False, True])
def test_a_model_is_not_written_to_a_device(force: bool, model: Path, tmp_path: Path) -> None:  # noqa: FBT001
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(os.devnull)
    for path in (Path(os.devnull), tmp_path / "fifo", tmp_path / "link"):
        with pytest.raises(UsageError, match="is a device or a pipe"):
            refuse_out(path, model, force=force)


@pytest.mark.parametrize("force", [False, True])
def test_a_model_does_not_replace_its_own_weights(force: bool, outside: Path, tmp_path: Path) -> None:  # noqa: FBT001
    with pytest.raises(UsageError, match="holds the weights of the source"):
        refuse_out(tmp_path / "big.data", outside, load(outside).external, force=force)
