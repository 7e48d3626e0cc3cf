"""Files that were damaged by chance: a result or one sentence, whatever the damage, and never more than some memory."""

from __future__ import annotations

import io
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphopt.errors import InputError, UsageError
from graphopt.report.text import shown
from graphopt.run.data import open_data
from graphopt.run.session import Port
from tests.corpus.case import Place
from tests.corpus.damage import damaged
from tests.corpus.jail import Jail
from tests.golden.cases import every
from tests.support.models import parse

usual = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))

PORTS = (
    Port("x", np.dtype(np.float32), ("N", 4), "tensor", np.dtype(np.float32)),
    Port("m", np.dtype(np.int64), ("N",), "tensor", np.dtype(np.int64)),
)
MEGABYTES = 64
"""That reading small data may take."""


# -- models ----------------------------------------------------------------------------------------------------------


def models() -> list[bytes]:
    """Small ones of every kind."""
    return [parse(case.before).SerializeToString() for case in every()[::7]]


@pytest.fixture(scope="module")
def jail() -> Iterator[Jail]:
    with Jail() as made:
        yield made


def survives(content: bytes, jail: Jail) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder)).made()
        place.model.write_bytes(content)
        out = place.inner / "out.onnx"
        found = jail.run(place, ["inspect", place.model], ["optimize", place.model, "-o", out, "--unverified"])
        found.insist(2)
        assert out.exists() == (found.codes[1] == 0)
        if out.exists():
            onnx.ModelProto.FromString(out.read_bytes())


@settings(usual, max_examples=15)
@given(content=damaged(models()))
def test_damaged_models(content: bytes, jail: Jail) -> None:
    survives(content, jail)


@pytest.mark.soak
@settings(usual, max_examples=5000)
@given(content=damaged(models()))
def test_very_many_damaged_models(content: bytes, jail: Jail) -> None:
    survives(content, jail)


# -- data ------------------------------------------------------------------------------------------------------------


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


X, M = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(3)
ARCHIVES = [npz(x=X, m=M), npz(x=X, m=M, labels=M), npz(x=X[None], m=M[None])]
TENSORS = [ir.to_proto(ir.tensor(a, name=n)).SerializeToString() for n, a in (("x", X), ("m", M))]
STORED = [
    onnx.TensorProto(name="x", data_type=1, dims=[3, 4], float_data=X.ravel().tolist()).SerializeToString(),
    onnx.TensorProto(name="x", data_type=8, dims=[2], string_data=[b"a", b"b"]).SerializeToString(),
]

_extents = st.one_of(st.integers(-3, 5), st.sampled_from((2**31, 2**62, 2**64, -(2**63), True, 1.0, "4", None)))
_headers = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(("<f4", ">f4", "<i8", "|O", "|S3", "<U2", "|V4", "|b1", "<M8[s]", "<c8", "x", "", 7)),
        "fortran_order": st.sampled_from((True, False, 2)),
        "shape": st.one_of(st.just((3, 4)), st.just(()), st.lists(_extents, max_size=40).map(tuple), st.just([3])),
    },
    optional={"more": st.none()},
)


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    """An .npy file whose header says what it likes."""
    text = repr(draw(_headers)) if draw(st.integers(0, 9)) else draw(st.text(max_size=200))
    header = (text + "\n").encode("latin-1", "replace")
    version = draw(st.sampled_from(((1, 0), (1, 0), (2, 0), (3, 0), (9, 9))))
    length = draw(st.one_of(st.just(len(header)), st.just(len(header)), st.sampled_from((0, 65535))))
    size = struct.pack("<H" if version == (1, 0) else "<I", length)
    return b"\x93NUMPY" + bytes(version) + size + header + draw(st.binary(max_size=64))


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A zip file of such arrays, or of much that is nothing."""
    file = io.BytesIO()
    names = st.sampled_from(("x.npy", "m.npy", "labels.npy", "../x.npy", "x", "\u202e.npy", "a\nb.npy"))
    with zipfile.ZipFile(file, "w", draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as archive:
        for name in draw(st.lists(names, max_size=3, unique=True)):
            content = draw(st.one_of(arrays(), st.just(bytes(1 << 17)), st.binary(max_size=100)))
            archive.writestr(name, content)
    made = file.getvalue()
    return draw(damaged([made])) if draw(st.booleans()) else made


def told(write: Callable[[Path], str]) -> None:
    """Read the data that `write` writes: it is read, or refused in one sentence, and takes little memory."""
    with tempfile.TemporaryDirectory() as folder:
        name, said = write(Path(folder)), "nothing"
        tracemalloc.start()
        try:
            for feed, _ in open_data(name, PORTS).pairs():
                assert feed.keys() == {"x", "m"}
        except (InputError, UsageError) as problem:
            said = str(problem).replace(folder, "")
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert 0 < len(said) < 1000, said
        assert len(shown(said).splitlines()) == 1
        assert peak < MEGABYTES << 20, peak


def data_set(x: bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "input_0.pb").write_bytes(x)
        (folder / "input_1.pb").write_bytes(TENSORS[1])
        return str(folder)

    return write


def archive(content: bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "data.npz").write_bytes(content)
        return str(folder / "data.npz")

    return write


@settings(usual, max_examples=150)
@given(content=st.one_of(archives(), damaged(ARCHIVES)))
def test_damaged_archives(content: bytes) -> None:
    told(archive(content))


@settings(usual, max_examples=150)
@given(content=damaged([*TENSORS, *STORED]))
def test_damaged_tensors(content: bytes) -> None:
    told(data_set(content))


@pytest.mark.soak
@settings(usual, max_examples=20_000)
@given(content=st.one_of(archives(), damaged(ARCHIVES)))
def test_very_many_damaged_archives(content: bytes) -> None:
    told(archive(content))


@pytest.mark.soak
@settings(usual, max_examples=20_000)
@given(content=damaged([*TENSORS, *STORED]))
def test_very_many_damaged_tensors(content: bytes) -> None:
    told(data_set(content))
