"""Code in the README, and in the pages behind it, is run as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": 6, "docs/compression.md": 4}
"""How many blocks of code there are to be run, those of the set-up apart."""


def blocks(page: str) -> list[tuple[str, str, str]]:
    text = (ROOT / page).read_text()
    return re.findall(r"(?P<mark><!-- \w+ -->\n)?```(?P<kind>bash|python)\n(?P<code>.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(("page", "count"), PAGES.items())
def test_blocks_in_their_order(page: str, count: int, tmp_path: Path) -> None:
    """In a place that looks like the checkout."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for mark, kind, code in blocks(page):
        if mark:
            continue  # the set-up commands make environments of their own; the test is run with the gate
        command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euc", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran == count


def test_set_up_commands_name_what_exists() -> None:
    commands = [code for mark, kind, code in blocks("README.md") if mark and kind == "bash"]
    assert len(commands) == 2
    assert all("python3 -m venv .venv && .venv/bin/pip install" in c for c in commands)
    assert (ROOT / "models" / "digits_resnet.onnx").is_file()
    assert "--group dev" in commands[1]
    assert "dev = [" in (ROOT / "pyproject.toml").read_text()
