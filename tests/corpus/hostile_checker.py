"""What kills the official checker or inference, which see a model before any runtime does: found by mutation."""

from __future__ import annotations

from tests.corpus.case import Hostile, graph

__all__ = ["CASES"]

_OUTSIDE = "n, m = LayerNormalization <axis = 1000000000000>(x, x)"
_IN_A_FUNCTION = f"""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
g (float[N,4] x) => (float[N,4] y) {{ y = f.norm (x) }}
<domain: "f", opset_import: ["" : 21]> norm (x) => (n) {{ {_OUTSIDE} }}"""

_DEATHS: dict[str, tuple[str, str]] = {
    "gather_nd_negative": (
        "inference reads before the beginning of a shape",
        """g (float[4,4] x) => (float y) <int64[1] i = {0}> {
          y = GatherND <batch_dims = -1000000000>(x, i)
        }""",
    ),
    "norm_axis": (
        "inference goes on beyond the end of a shape",
        f"g (float[N,4] x) => (float[N,4] y) {{ {_OUTSIDE} y = Identity(n) }}",
    ),
    "norm_axis_in_function": ("the same where inference comes to it only once it is put in place", _IN_A_FUNCTION),
    "split_more_outputs": (
        "inference divides among fewer parts than there are",
        "g (float[4] x) => (float[4] y) { y, z, w = Split <num_outputs = 1>(x) }",
    ),
    "einsum_dot": (
        "inference never gets past a single dot",
        """g (float[2,2] x) => (float y) { y = Einsum <equation = "A.B->C">(x, x) }""",
    ),
}

CASES = tuple(Hostile(f"checker_{n}", why, graph(text)) for n, (why, text) in _DEATHS.items())
