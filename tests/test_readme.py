"""The README's code is run as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"(?P<mark><!-- \w+ -->\n)?```(?P<kind>bash|python)\n(?P<code>.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that looks like the checkout to the README's commands."""
    path = tmp_path_factory.mktemp("readme")
    (path / "models").symlink_to(ROOT / "models")
    return path


def test_blocks_in_their_order(folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for mark, kind, code in BLOCKS:
        if mark:
            continue  # the set-up commands make environments of their own; the test is run with the gate
        command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euc", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran == 10


def test_set_up_commands_name_what_exists() -> None:
    commands = [code for mark, kind, code in BLOCKS if mark and kind == "bash"]
    assert len(commands) == 2
    assert all("python3 -m venv .venv && .venv/bin/pip install" in c for c in commands)
    assert (ROOT / "models" / "digits_resnet.onnx").is_file()
    assert "--group dev" in commands[1]
    assert "dev = [" in (ROOT / "pyproject.toml").read_text()
