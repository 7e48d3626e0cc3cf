"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphopt.protocol import Evaluator
from graphopt.run.child import Child
from tests.support.browser import CHROMIUM, WHY, Browser
from tests.support.models import evaluator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the rules do now into tests/golden")


@pytest.fixture(scope="session")
def evaluate() -> Iterator[Evaluator]:
    """Folding's evaluator, as the pipeline has it."""
    with Child() as child:
        yield evaluator(child)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests that look at pages, which are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip(WHY)
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found
