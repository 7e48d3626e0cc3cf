"""Makes the README's picture of a report: `python -m tests.bench.picture docs/report.png`, where Chromium is."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import graphopt
from tests.support.browser import CHROMIUM, WHY, Browser

MODELS = Path(__file__).parents[2] / "models"
SIZE = (1000, 1036)


def main(target: Path) -> None:
    """Less than half of a network, and what that costs, as a page of which the upper part is drawn."""
    if CHROMIUM is None:
        sys.exit(WHY)
    target = target.absolute()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(MODELS), Browser(Path(folder)) as browser:
        made = graphopt.optimize("digits_resnet.onnx", data="digits_calib.npz", max_drop={"sqnr": 15}, device="cpu")
        made = replace(made, report=made.report.at(made.save(Path(folder) / "smaller.onnx")))
        file = Path(folder) / "report.html"
        file.write_text(made.to_html(), "utf-8")
        browser.open(file)
        browser.view(SIZE)
        target.write_bytes(browser.picture())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
