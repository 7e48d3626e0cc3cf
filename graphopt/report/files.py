"""Files that results and reports go to: refused before anything runs where writing them would destroy something."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from graphopt.errors import MachineError, UsageError
from graphopt.graph.load import files_of

__all__ = ["beside", "is_there", "refuse_out", "refuse_side_files"]


def beside(model: Path) -> Path:
    """Where the result for `model` goes if nothing else is said."""
    return model.parent / f"{model.name.removesuffix('.onnx')}.opt.onnx"


def is_there(path: Path) -> bool:
    """Whether there is a file; what cannot be one is not."""
    try:
        return path.is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def refuse_out(path: Path, source: Path | None, external: Iterable[Path] = (), *, force: bool = False) -> None:
    """Refuse a place for a model at which something else would be lost.

    Args:
        path: where the model shall go.
        source: the file it was made from, if it was.
        external: files of that model's weights.
        force: allow a symbolic link to a file, and the source itself.

    Raises:
        UsageError: it is a folder, a device or the like, a symbolic link, or the source.
        MachineError: its folder is missing or not writable.
    """
    with _telling(path):
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give the name of a file in it")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is a device or a pipe, no regular file: give the name of a file")
        if not force and path.is_symlink():
            raise UsageError(
                f"{path} is a symbolic link: give the file it stands for, or --force to replace the link's target"
            )
        if not force and source is not None and _same(path, source):
            raise UsageError(f"{path} is the source itself: give another -o, or --force to replace it")
        if any(_same(path, file) for file in external):
            raise UsageError(f"{path} holds the weights of the source: give another -o")
        _refuse_folder(path.resolve() if force else path)


def refuse_side_files(
    given: Mapping[str, Path | None],
    models: Mapping[str, Path | None],
    keep: Mapping[str, Path | None],
    external_root: Path | None = None,
) -> None:
    """Refuse reports that would take the place of something else.

    Args:
        given: files to write, by the option that names each; None stands for no file, and so does "-" of --json.
        models: models that are read, by what the user knows them as; their weights are kept as well.
        keep: further files that are not to be replaced.
        external_root: where else those weights may be.

    Raises:
        UsageError: a file is one of the others or a second one of `given`, a symbolic link, or no regular file.
        MachineError: its folder is missing or not writable.
        InputError: a model in whose folder a file is to be replaced cannot be read.
    """
    taken = dict(models) | dict(keep)
    for option, path in given.items():
        if path is None or _is_stdout(option, path):
            continue
        with _telling(path):
            for name, other in taken.items():
                if other is not None and _same(path, other):
                    raise UsageError(f"{option} {path} is {name} itself: give another file")
            if path.is_symlink():
                raise UsageError(f"{option} {path} is a symbolic link: give the file it stands for")
            if path.is_dir():
                raise UsageError(f"{option} {path} is a folder: give the name of a file in it")
            if path.exists() and not path.is_file():
                raise UsageError(f"{option} {path} is a device or a pipe, no regular file: give the name of a file")
            _refuse_folder(path)
            for model in (m for m in models.values() if m is not None and path.exists()):
                inside = is_there(model) and path.resolve().is_relative_to(model.resolve().parent)
                if inside and any(_same(path, file) for file in files_of(model, external_root)):
                    raise UsageError(f"{option} {path} holds the weights of {model}: give another file")
        taken[option] = path


def _is_stdout(option: str, path: Path) -> bool:
    """Whether no file is meant; raises `UsageError` where only a file can be."""
    if str(path) == "-" and option != "--json":
        raise UsageError(f"{option} - is no file, and only --json goes to stdout: give the name of a file")
    return str(path) == "-"


def _refuse_folder(path: Path) -> None:
    """A folder that does not take `path` is found out before the work is done, not after it."""
    folder = path.parent
    folder.stat()
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _same(first: Path, second: Path) -> bool:
    """Whether both are one file, by whatever names; one that is not there yet has only its name."""
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """What the system says of a path, as one sentence."""
    try:
        yield
    except OSError as problem:
        raise MachineError(
            f"{path} cannot be written: {problem.strerror or 'no such path'}; nothing was changed"
        ) from None
    except (ValueError, RuntimeError):  # a zero character; links that go round in circles
        raise UsageError(f"{path} is no name that a file can have") from None
