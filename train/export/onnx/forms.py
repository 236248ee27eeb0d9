"""Operations in the shortest form that ONNX has.

torch writes them for any rank and size, with arithmetic on shapes at every call, which costs more than what it is for.
Sizes 0 in a Reshape stand for "as it was".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx.symbolic_helper import parse_args

OPSET = 20  # the first with GELU


@contextmanager
def short_forms() -> Iterator[None]:
    """While this lasts, torch's exporter writes these operations in the forms of this file."""
    for name, form in FORMS.items():
        torch.onnx.register_custom_op_symbolic(name, form, OPSET)
    try:
        yield
    finally:
        for name in FORMS:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)


def _attention(g: Any, query: Any, keys: Any, values: Any, mask: Any, *_: Any) -> Any:
    """Two products and a softmax, with a constant scale, for queries (B, h, Q, W / h)."""
    scale = _constant(g, query.type().varyingSizes()[-1] ** -0.5)
    scores = g.op("MatMul", g.op("Mul", query, scale), g.op("Transpose", keys, perm_i=[0, 1, 3, 2]))
    if not mask.node().mustBeNone():
        scores = g.op("Where", mask, scores, _constant(g, -torch.inf))
    return g.op("MatMul", g.op("Softmax", scores, axis_i=-1), values)


def _chunk(g: Any, x: Any, chunks: int, dim: int) -> Any:
    return g.op("Split", x, axis_i=dim, num_outputs_i=chunks, outputs=chunks)


def _cumsum(g: Any, x: Any, axis: Any, *_: Any) -> Any:
    """Of booleans, or ids, as integers; torch forgets the former."""
    return g.op("CumSum", g.op("Cast", x, to_i=torch.onnx.TensorProtoDataType.INT64), axis)


@parse_args("v", "i", "i")
def _flatten(g: Any, x: Any, start: int, end: int) -> Any:
    rank = x.type().dim()
    first, last = start % rank, end % rank
    joined = _constant(g, [0] * first + [-1])
    if last + 1 < rank:
        joined = g.op("Concat", joined, g.op("Shape", x, start_i=last + 1), axis_i=0)
    return g.op("Reshape", x, joined)


@parse_args("v", "i", "v")
def _unflatten(g: Any, x: Any, axis: int, sizes: Any) -> Any:
    """Of the last dimension."""
    rank = x.type().dim()
    if axis not in (-1, rank - 1):
        raise ValueError("unflatten has an ONNX form for the last dimension alone")
    return g.op("Reshape", x, g.op("Concat", _constant(g, [0] * (rank - 1)), sizes, axis_i=0))


@parse_args("v", "i", "v", "v", "s", "b")
def _scatter_reduce(g: Any, x: Any, axis: int, index: Any, source: Any, *_: Any) -> Any:
    """The largest value that is scattered to a place."""
    return g.op("ScatterElements", x, index, source, axis_i=axis, reduction_s="max")


def _constant(g: Any, value: Any) -> Any:
    return g.op("Constant", value_t=torch.tensor(value))


FORMS = {
    "aten::scaled_dot_product_attention": _attention,
    "prim::ConstantChunk": _chunk,
    "aten::cumsum": _cumsum,
    "aten::flatten": _flatten,
    "aten::unflatten": _unflatten,
    "aten::scatter_reduce": _scatter_reduce,
}
