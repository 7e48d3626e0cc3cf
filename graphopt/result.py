"""What `optimize` made: a model, and the report of how it came about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx

from graphopt import pipeline
from graphopt import recipe as recipes
from graphopt.counted import counted
from graphopt.errors import InputError
from graphopt.graph.save import save, serialize
from graphopt.report.data import Report
from graphopt.report.files import refuse_out
from graphopt.report.html import page
from graphopt.report.markdown import markdown
from graphopt.verify import explain

__all__ = ["Result"]


@dataclass(frozen=True, repr=False)
class Result:
    """What `optimize` made."""

    report: Report
    outcome: pipeline.Outcome
    recipe: recipes.Recipe

    def __repr__(self) -> str:
        before, after, found = self.report.source, self.report.output, self.report.verification
        good = "compressed" if self.report.cut else "verified"
        verdict = "unverified" if found is None else good if found else "not equal"
        return f"<Result for {before.name}: {before.nodes} → {counted(after.nodes, 'node')}, {verdict}>"

    @property
    def model(self) -> onnx.ModelProto:
        """The optimized model, weights inside."""
        content = self.outcome.content
        return onnx.load_from_string(
            content if content is not None else serialize(self.outcome.model, self.outcome.source.carried)
        )

    def to_html(self) -> str:
        """The report, and the recipe that repeats it, as a page for a browser that needs nothing else."""
        return page(self.report, self.recipe.text())

    def to_markdown(self) -> str:
        """The report in short, for a pull request."""
        return markdown(self.report)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model; it appears at `path` complete, or not at all.

        The written file is read back and compared with the original once more before it is moved into place.

        Args:
            path: where to.
            force: write through a symbolic link, or over the source itself.

        Raises:
            UsageError: `path` is a folder, a device or the like, a symbolic link, the source, or holds its weights.
            MachineError: the folder is missing, full or not writable.
        """
        target, source = Path(path), self.outcome.source
        refuse_out(target, source.path, source.external, force=force)
        content = self.outcome.content
        save(
            self.outcome.model if content is None else content,
            target.resolve() if force else target,
            source.carried,
            check=self._check,
        )
        return target

    def _check(self, written: Path) -> None:
        judge = self.outcome.judge
        if judge is not None and not (found := judge.written(written)):
            raise InputError(f"the written file does not do the original's job: {explain(found)}; nothing was emitted")
