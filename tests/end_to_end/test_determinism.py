"""Same inputs, same bytes: whatever the hash seed, the number of threads, the folder and the day."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import graphopt
from graphopt.recipe import Recipe
from tests.end_to_end.support import DATA, MODELS, command
from tests.end_to_end.support import graphopt as process
from tests.support.models import parse


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        pytest.param("digits_mobilenet", False, id="mobilenet"),
        pytest.param("digits_mobilenet", True, id="external data"),
        pytest.param("digits_vit", False, id="vit", marks=pytest.mark.soak),
    ],
)
def test_two_processes_write_the_same_bytes(name: str, outside: bool, tmp_path: Path) -> None:  # noqa: FBT001
    made = []
    for index, (seed, threads) in enumerate((("0", 1), ("4242", 2))):
        folder = tmp_path / f"folder {index}"
        folder.mkdir()
        given = onnx.load(MODELS / f"{name}.onnx")
        onnx.save(given, folder / "in.onnx", save_as_external_data=outside, location="in.data", size_threshold=0)
        environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": str(threads)}
        answer = process("optimize", "in.onnx", "--threads", threads, "-q", cwd=folder, env=environment)
        assert (answer.code, answer.err) == (0, "")
        made.append((folder / "in.opt.onnx").read_bytes())
    assert made[0] == made[1]


def test_the_api_and_the_command_write_the_same_bytes(tmp_path: Path) -> None:
    source, out = MODELS / "digits_lstm.onnx", tmp_path / "out.onnx"
    assert command("optimize", source, "-o", out, "--data", DATA, "-q").code == 0
    result = graphopt.optimize(source, data=DATA)
    assert result.save(tmp_path / "again.onnx").read_bytes() == out.read_bytes()
    assert result.model.SerializeToString(deterministic=True) == out.read_bytes()


def test_replaying_a_saved_recipe_writes_the_same_bytes(tmp_path: Path) -> None:
    source, first, recipe = MODELS / "digits_resnet.onnx", tmp_path / "first.onnx", tmp_path / "recipe.toml"
    words = [
        "--pass",
        "clean",
        "--pass",
        "fold{max_bytes=4096}",
        "--pass",
        "fuse-linear",
        "--skip",
        "/stem/stem.1/BatchNormalization",
    ]
    assert command("optimize", source, "-o", first, *words, "--save-recipe", recipe, "-q").code == 0
    assert Recipe.read(recipe) == Recipe.of(words[1:6:2], [words[7]])
    second = tmp_path / "second.onnx"
    assert command("optimize", source, "-o", second, "--recipe", recipe, "-q").code == 0
    assert second.read_bytes() == first.read_bytes()


def test_the_recipe_in_an_emitted_file_makes_it_again() -> None:
    source = MODELS / "digits_mobilenet.onnx"
    first = graphopt.optimize(source, keep_metadata=True).model
    stamp = {p.key: p.value for p in first.metadata_props}
    again = graphopt.optimize(source, recipe=Recipe.parse(stamp["graphopt.recipe"])).model
    assert again == first


def test_what_there_was_no_room_for_has_none_the_second_time() -> None:
    given = parse("""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[2] x, bool e) => (float[2] y)
        <int64 m = {2}>
        {
          a = Neg (x)
          y = Loop (m, "", x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
            d = Identity (c)
            t = If (e) <then_branch = p () => (float[2] u) { u = Add (s, a) },
                        else_branch = q () => (float[2] v) { v = Exp (s) }>
          }>
        }
    """)
    first = graphopt.optimize(given, opset=23, unverified=True).model
    assert graphopt.optimize(first, opset=23, unverified=True).model == first
