from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx_ir as ir
import pytest

from graphopt.graph.load import load
from graphopt.run.cuda import cuda_works
from graphopt.run.optimized import optimized
from graphopt.run.placement import Placement, copies, placed
from graphopt.run.runtime import CPU, CUDA
from graphopt.run.session import Session
from tests.run.test_session import model
from tests.support.models import parse

WORKS, WHY = cuda_works()
GRAPH = "g (float[n,3] x) => (int64[2,m] y) { a = Neg(x) b = Exp(a) y = NonZero(b) }"
COPIED = """g (float[n] x, bool c) => (float[n] y) {
    a = MemcpyToHost(x) b = Neg(a) d = MemcpyFromHost(b)
    y = If(c) <then_branch = t () => (float[n] u) { u = MemcpyFromHost(b) },
               else_branch = e () => (float[n] v) { v = Neg(d) }> }"""


@dataclass
class Taken:
    """A node, or a subgraph of one node, as onnxruntime tells it."""

    ep_name: str
    op_type: str
    name: str = ""

    def get_nodes(self) -> list[Taken]:
        return [self] * (118 if self.op_type == "Conv" else 1)


@pytest.mark.parametrize(
    ("provider", "taken", "copied", "text"),
    [
        (
            CUDA,
            [Taken(CUDA, "Conv"), Taken(CPU, "NonZero"), Taken(CPU, "Unique")],
            3,
            "118 of 120 nodes run on CUDA, 2 on the CPU (NonZero, Unique), 3 copies between them",
        ),
        (
            CUDA,
            [Taken(CUDA, "Neg"), Taken(CPU, "Shape"), Taken(CPU, "Shape")],
            0,
            "1 of 3 nodes run on CUDA, 2 on the CPU (Shape ×2), no copies between them",
        ),
        (
            CUDA,
            [Taken(CPU, o) for o in "ABCDEF"],
            1,
            "0 of 6 nodes run on CUDA, 6 on the CPU (A, B, C, D, and 2 more), 1 copy between them",
        ),
        (
            CUDA,
            [Taken(CUDA, "Neg"), Taken(CPU, "A"), Taken("XExecutionProvider", "B")],
            None,
            "1 of 3 nodes run on CUDA, 1 on the CPU, 1 on X (A, B)",
        ),
        (CUDA, [Taken(CUDA, "Conv")], 0, "all 118 nodes run on CUDA"),
        (CPU, [Taken(CPU, "Neg")] * 2, None, "all 2 nodes run on the CPU"),
        (CPU, [], None, "there is no node to run"),
    ],
)
def test_a_placement_is_one_sentence(provider: str, taken: list[Taken], copied: int | None, text: str) -> None:
    assert str(placed(provider, taken, copied)) == text


def test_a_placement_is_counted() -> None:
    found = placed(CUDA, [Taken(CUDA, "Conv"), Taken(CPU, "Unique", "u"), Taken(CPU, "Shape"), Taken(CPU, "Shape")], 2)
    assert found.nodes == {CUDA: 118, CPU: 3}
    assert found.operators == {"Shape": 2, "Unique": 1}
    assert dataclasses.astuple(found.elsewhere[0]) == ("Unique", "u", CPU)
    assert found.copies == 2


def test_copies_are_counted_in_bodies_too() -> None:
    assert copies(ir.from_proto(parse(COPIED)).graph) == 3


def test_onnxruntime_tells_what_it_assigned() -> None:
    assert Session(model(GRAPH)).placement == Placement(CPU, 3)
    assert optimized(load(parse(GRAPH)).model).placement == Placement(CPU, 3, copies=0)


@pytest.mark.cuda
@pytest.mark.skipif(not WORKS, reason=WHY)
def test_nodes_without_a_cuda_kernel_run_on_the_cpu() -> None:
    unique = "g (float[n] x) => (float[m] y) { a = Neg(x) b = Unique(a) y = Exp(b) }"
    found = Session(model(unique), device="cuda").placement
    assert found.nodes == {CUDA: 2, CPU: 1}
    assert found.operators == {"Unique": 1}
    assert Session(model(GRAPH), device="cuda").placement == Placement(CUDA, 3)
