"""Products written as several: at full rank nothing changes, and with less what is lost is what was told."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphopt import ops
from graphopt.analysis.channels import channels
from graphopt.compress.compress import compress
from graphopt.compress.forms.factor import Basis, Factor, Factored, refined, solved, spanned, write
from graphopt.compress.forms.lowrank import LowRank, Tucker
from graphopt.compress.forms.offers import FACTORED, FORMS, offers, with_choices
from graphopt.compress.forms.separable import Separable
from graphopt.errors import UsageError
from graphopt.graph import values
from graphopt.graph.nodes import key, static_shape
from graphopt.plan.budget import amounts, row
from graphopt.plan.plan import Plan
from graphopt.spelling import parse, spec
from tests.compress.test_compress import data, error, residual, run
from tests.support.models import source

Array = NDArray[Any]


def model_of(nodes: str, x: str, y: str, **weights: Array) -> ir.Model:
    declared = ", ".join(
        f"float[{','.join(map(str, a.shape))}] {n} = {{{','.join(f'{v:.5f}' for v in a.ravel())}}}"
        for n, a in weights.items()
    )
    return source(f'<ir_version: 10, opset_import: ["" : 21]> g ({x} x) => ({y} y) <{declared}> {{ {nodes} }}').model


def written(model: ir.Model, form: Factored, rank: int) -> ir.Model:
    """The model with its only product in this form, found for white data."""
    copy = model.clone()
    (node,) = [n for n in copy.graph if ops.linears(n)]
    (linear,) = ops.linears(node)
    matrix = linear.matrix()[0].astype(np.float64)
    basis = form.spans(linear, matrix, np.eye(matrix.shape[1]))(rank)
    last = solved(basis.matrix @ basis.matrix.T, basis.matrix @ matrix.T).T
    tensor = ir.tensor(linear.unmatrix((last @ basis.matrix)[None]))
    weight = ir.Value(
        name="projected", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )
    copy.graph.register_initializer(weight)
    node.replace_input_with(linear.weight, weight)
    write(copy, {key(node): basis})
    values.follow(copy)
    return copy


_NORMAL = np.random.default_rng(0).standard_normal


@given(
    st.sampled_from(["", "h", "w", "hw", "tucker", "separable"]),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.one_of(st.tuples(*[st.integers(0, 2)] * 4), st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"])),
)
def test_a_convolution_of_full_rank_stays_what_it_is(
    kind: str, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], pads: Any
) -> None:
    assume(isinstance(pads, tuple) or dilations == (1, 1))  # onnxruntime takes no other
    where = f"pads={list(pads)}" if isinstance(pads, tuple) else f'auto_pad="{pads}"'
    lists = f"kernel_shape={list(kernel)}, strides={list(strides)}, dilations={list(dilations)}, {where}"
    model = model_of(
        f"y = Conv<{lists}>(x, w, b)", "float[N,3,7,8]", "float[N,5,H,W]", w=_NORMAL((5, 3, *kernel)), b=_NORMAL(5)
    )
    (linear,) = ops.linears(model.graph[0])
    form: Factored = {"tucker": Tucker(), "separable": Separable(kernel[0] * kernel[1])}.get(kind) or LowRank(0.5, kind)
    full = {"tucker": 64, "separable": min(5, kernel[0] * kernel[1])}.get(kind)
    rank = full or form.most(linear)  # type: ignore[attr-defined]
    feed = {"x": _NORMAL((2, 3, 7, 8)).astype(np.float32)}
    np.testing.assert_allclose(run(written(model, form, rank), feed), run(model, feed), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "node", ["y = MatMul(x, w)", "y = Gemm<alpha=0.5, beta=2.0>(x, w, b)", "y = Gemm<transB=1>(x, t, b)"]
)
def test_a_matrix_of_full_rank_stays_what_it_is(node: str) -> None:
    w = _NORMAL((6, 4))
    model = model_of(node, "float[N,6]", "float[N,4]", w=w, t=w.T, b=_NORMAL(4))
    feed = {"x": _NORMAL((5, 6)).astype(np.float32)}
    thin = written(model, LowRank(), 4)
    assert sum(bool(ops.linears(n)) for n in thin.graph) == 2
    np.testing.assert_allclose(run(thin, feed), run(model, feed), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", FACTORED)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_what_is_left_is_counted_right(kind: type[Factored], strides: tuple[int, int]) -> None:
    """Against the nodes that were written, on an image so large that borders do not count."""
    lists = f"kernel_shape=[3,3], strides={list(strides)}, pads=[1,1,1,1]"
    model = model_of(f"y = Conv<{lists}>(x, w)", "float[1,8,64,64]", "float[1,12,H,64]", w=_NORMAL((12, 8, 3, 3)))
    values.follow(model)
    (linear,) = ops.linears(model.graph[0])
    for form in (f for series in kind.offered(linear) for f in series):
        if (rank := form.rank(linear)) == 0:
            continue
        thin, left = written(model, form, rank), form.left(linear, rank)
        full, done = (sum(ops.macs(n, static_shape) or 0 for n in m.graph) for m in (model, thin))
        sizes = [sum(linear.weights.size for n in m.graph for linear in ops.linears(n)) for m in (model, thin)]
        assert left.macs == pytest.approx(done / full, rel=0.01)
        assert left.params == pytest.approx(sizes[1] / sizes[0])


@given(st.sampled_from([(frozenset[int](), 1), (frozenset({0}), 1), (frozenset({0, 1}), 1), (frozenset({0, 1}), 4)]))
def test_refining_only_ever_helps(case: tuple[frozenset[int], int]) -> None:
    axes, groups = case
    kernel, random = (3, 3), np.random.default_rng(1)
    matrix, x = random.standard_normal((6, 36)), random.standard_normal((36, 36))
    gram = x @ x.T / 36 + 0.01 * np.eye(36)
    extents = [3 if i in axes else 1 for i in range(2)]
    factor = Factor(random.standard_normal((4 if groups > 1 else 3, 1 if groups > 1 else 4, *extents)), axes, groups)
    first = Basis((factor,), spanned(factor, kernel))

    def lost(basis: Basis) -> float:
        span = basis.matrix
        gap = matrix - solved(span @ gram @ span.T, span @ gram @ matrix.T).T @ span
        return float(np.sum((gap @ gram) * gap))

    better = refined(first, matrix, gram, kernel)
    assert lost(better) < lost(first)
    np.testing.assert_allclose(better.matrix, spanned(better.factors[0], kernel))


def test_text() -> None:
    known = {kind.name: kind for kind in FORMS}
    for form in (LowRank(0.4, "h"), Tucker(0.3), Separable(2)):
        assert parse(spec(form), known) == form
    for wrong in ("lowrank{share=1.0}", 'lowrank{first="x"}', "separable{filters=0}"):
        with pytest.raises(UsageError):
            parse(wrong, known)


def redundant() -> ir.Model:
    """Its kernels are products of a column and a row; what one loses by another form is known."""
    columns, rows = _NORMAL((8, 4, 3, 1)), _NORMAL((8, 1, 1, 3))
    return model_of(
        "a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) r = Relu(a) p = GlobalAveragePool(r) y = Flatten(p)",
        "float[N,4,6,6]",
        "float[N,8]",
        w=columns[:1] * rows,
        b=_NORMAL(8),
    )


def test_what_loses_nothing_is_offered_and_taken() -> None:
    model = redundant()
    found = channels(model, values.bound(model, {"x": (2, 4, 6, 6)}), samples=2)
    choices = offers(model, found, data())
    (choice,) = choices.values()
    assert choice.ways[-1] == ""
    assert list(choice.losses) == sorted(choice.losses, reverse=True)
    cheap = choice.ways.index(next(w for w, loss in zip(choice.ways, choice.losses, strict=True) if loss < 1e-3))
    form = parse(choice.ways[cheap], {kind.name: kind for kind in FORMS})
    made = compress(model, found, {}, data(), forms={choice.product[0]: form})
    assert error(model, made.model) < 1e-4
    sites = with_choices(found, choices)
    for name, cost in amounts(sites).items():
        steps = dict.fromkeys(sites.choices, cheap + 1)
        assert Plan.chosen(steps, sites).forms == {choice.product[0]: choice.ways[cheap]}
        whole, less = (float(cost(row(sites, w))[0]) for w in ({}, steps))
        assert less == pytest.approx(whole * choice.left[name][cheap].sum())


def test_channels_and_forms_together() -> None:
    """The form of a product is fitted to what is left of it, and both halves of a block are fitted together."""
    model, found = residual()
    (first, _), (second, _), *_ = found.products
    keep = {next(k for k, g in found.groups.items() if (second, 0) in g.readers): np.arange(12) < 9}
    cut = compress(model, found, keep, data())
    both = compress(model, found, keep, data(), forms={first: LowRank(0.7, "h"), second: LowRank(0.7, "w")})
    names = [n.name for n in both.model.graph if ops.linears(n)]
    assert len(names) == len([n for n in cut.model.graph if ops.linears(n)]) + 2
    assert error(model, cut.model) < error(model, both.model) < 0.5


def test_a_form_that_a_product_has_no_rank_for_is_left_out() -> None:
    model, found = residual()
    made = compress(model, found, {}, data(), forms={list(found.products)[-1][0]: LowRank(0.01)})
    assert len(list(made.model.graph)) == len(list(model.graph))
