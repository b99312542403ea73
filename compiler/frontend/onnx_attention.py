"""Attention as ONNX Runtime fuses it, written out: products of queries and keys, a mask of numbers, softmax, products with values.

`fuse-attention` makes one operation of it again where queries are few. A mask that is absent is the empty name; what is masked has
`mask_filter_value` added.
Read from ONNX Runtime's list of contributed operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from qcc.compiler.frontend.onnx_expansion import Expansion, Rule
from qcc.compiler.frontend.onnx_graph import attributes, error_at_node


def _attention(e: Expansion) -> None:
    """x, weights [input, q + k + v], bias, mask, past [2, batch, heads, positions, size], term of the scores."""
    product = e.add("MatMul", [e.input(0), e.input(1)])
    refuse(e, (6, "past_sequence_length"))
    _self_attention(e, product, e.shape(1)[1], e.input(2), 3, 4, 5)


def _quantized_attention(e: Expansion) -> None:
    """x and weights in integers, bias, their scales, mask, their zero points, past."""
    x, w = e.dequantize(e.input(0), e.input(3), e.input(6)), e.dequantize(e.input(1), e.input(4), e.input(7), axis=-1)
    _self_attention(e, e.add("MatMul", [x, w]), e.shape(1)[1], e.input(2), 5, 8, 9)


def _self_attention(e: Expansion, product: str, width: int, bias: str, mask: int, past: int, term: int) -> None:
    """Of `product` [batch, positions, width], which holds queries, keys and values; numbers of the inputs that may follow."""
    given, (batch, length, _) = attributes(e.source), e.shape(0)
    heads, sizes = given["num_heads"], given.get("qkv_hidden_sizes") or [width // 3] * 3
    for name in ("do_rotary", "past_present_share_buffer"):
        if given.get(name):
            raise error_at_node(e.source, f"{e.source.op_type} has {name} = 1, expected 0; export the model without this fusion")
    product = e.add("Add", [product, bias]) if bias else product
    ends = np.cumsum(sizes)
    parts = [e.slice(product, int(end - size), int(end), -1) for size, end in zip(sizes, ends, strict=True)]
    q, k, v = (split(e, part, [batch, length, heads, size // heads]) for part, size in zip(parts, sizes, strict=True))
    before = 0
    if e.input(past):
        before = e.shape(past)[3]
        k, v = (
            e.add("Concat", [e.reshape(e.slice(e.input(past), i, i + 1, 0), e.shape(past)[1:]), x], axis=2) for i, x in enumerate((k, v))
        )
    if len(e.source.output) > 1 and e.source.output[1]:
        e.add("Concat", [e.add("Unsqueeze", [x, e.integers([0])]) for x in (k, v)], e.source.output[1], axis=0)
    terms = [_padding(e, mask, length, before + length), e.input(term), _causal(e, length, before + length)]
    _attend(e, q, k, v, sizes[0] // heads, terms)


def _multi_head(e: Expansion) -> None:
    """Queries, keys, values, bias, mask, term of the scores, past keys, past values."""
    results, heads = [*e.source.output, "", "", ""], attributes(e.source)["num_heads"]
    refuse(e, (8, "past_sequence_length"), (9, "cache_indirection"))
    if results[3]:
        raise error_at_node(e.source, "MultiHeadAttention gives its scores (output qk), expected a model without them")
    operands, start, made = _queries_keys_values(e), 0, list[str]()
    for x, shape in operands:
        if len(shape) == 4:  # keys or values of another sequence, with heads in front and their bias
            made.append(x)
            continue
        batch, length, width = shape
        x = e.add("Add", [x, e.slice(e.input(3), start, start + width, 0)]) if e.input(3) else x
        made.append(split(e, x, [batch, length, heads, width // heads]))
        start += width
    q, k, v = made
    (batch, length), total = operands[0][1][:2], operands[1][1][-2 if len(operands[1][1]) == 4 else 1]
    if e.input(6):
        total += e.shape(6)[2]
        k, v = (e.add("Concat", [e.input(6 + i), x], axis=2) for i, x in enumerate((k, v)))
    for x, result in zip((k, v), results[1:3], strict=True):
        if result:
            e.add("Identity", [x], result)
    _attend(e, q, k, v, operands[0][1][2] // heads, [_padding(e, 4, length, total), e.input(5), _causal(e, length, total)])


def _queries_keys_values(e: Expansion) -> list[tuple[str, list[int]]]:
    """Each with its shape, [batch, positions, width] where it was packed: [batch, positions, heads, 3 or 2, size]."""
    parts: list[tuple[str, list[int]]] = []
    for i in range(3):
        if not e.input(i):
            continue
        shape = e.shape(i)
        if len(shape) == 5:
            batch, length, heads, count, size = shape
            flat = [batch, length, heads * size]
            parts += [(e.reshape(e.slice(e.input(i), j, j + 1, 3), flat), flat) for j in range(count)]
        else:
            parts.append((e.input(i), shape))
    if len(parts) != 3:
        raise error_at_node(e.source, "MultiHeadAttention lacks keys or values, expected them beside the queries or packed with them")
    return parts


# -- parts of all of them ------------------------------------------------------------------------------------------------------------


def _attend(e: Expansion, q: str, k: str, v: str, size: int, terms: Sequence[str]) -> None:
    """Attention of [batch, heads, positions, size] each, heads side by side again, as the node's first output."""
    joined(e, attended(e, q, k, v, attributes(e.source).get("scale") or 1 / math.sqrt(size), terms))


def attended(e: Expansion, q: str, k: str, v: str, scale: float, terms: Sequence[str], cap: float = 0, sink: str = "") -> str:
    """softmax(scale q k^T + terms) v; scores go through cap tanh(. / cap) first, and `sink` is that of a key without a value."""
    mask = ""
    for term in terms:
        mask = e.add("Add", [mask, term]) if mask and term else mask or term
    scores = e.add("Mul", [e.add("MatMul", [q, e.add("Transpose", [k], perm=[0, 1, 3, 2])]), e.number(scale)])
    if cap:
        scores = e.add("Mul", [e.add("Tanh", [e.add("Mul", [scores, e.number(1 / cap)])]), e.number(cap)])
    scores = e.add("Add", [scores, mask]) if mask else scores
    if not sink:
        return e.add("MatMul", [e.add("Softmax", [scores], axis=-1), v])
    weights = e.add("Softmax", [e.add("Concat", [scores, sink], axis=-1)], axis=-1)
    return e.add("MatMul", [e.slice(weights, 0, -1, -1), v])


def joined(e: Expansion, y: str) -> None:
    """[batch, heads, positions, size] as the node's first output [batch, positions, heads * size]."""
    e.reshape(e.add("Transpose", [y], perm=[0, 2, 1, 3]), [*e.shape(0)[:2], -1], e.source.output[0])


def _padding(e: Expansion, index: int, length: int, total: int) -> str:
    """The term of a mask that broadcasts to [batch, heads, length, total].

    Of numbers for every key [batch, total], for every query as well [batch, length, total], of lengths [batch], or of the ends and then
    the starts of what is not padding [2 * batch].
    """
    name = e.input(index)
    if not name:
        return ""
    batch, shape = e.shape(0)[0], e.shape(index)
    if shape in ([batch, total], [batch, length, total]):
        axes = [1, 2] if len(shape) == 2 else [1]
        kept = e.add("Unsqueeze", [e.add("Cast", [name], to=onnx.TensorProto.BOOL), e.integers(axes)])
    elif shape in ([batch], [2 * batch]):
        numbers = e.graph.constant(np.arange(total, dtype=np.int32), "positions")
        ends = e.reshape(e.slice(name, 0, batch, 0), [batch, 1, 1, 1])
        kept = e.add("Less", [numbers, ends])
        if shape == [2 * batch]:
            starts = e.reshape(e.slice(name, batch, 2 * batch, 0), [batch, 1, 1, 1])
            kept = e.add("And", [kept, e.add("GreaterOrEqual", [numbers, starts])])
    else:
        raise error_at_node(
            e.source,
            f"the mask of {e.source.op_type} has shape {shape}, expected {[batch, total]}, {[batch, length, total]}, {[batch]} or "
            f"{[2 * batch]}; export the model without this fusion",
        )
    return e.add("Where", [kept, e.number(0), e.number(attributes(e.source).get("mask_filter_value", -10000.0))])


def _causal(e: Expansion, length: int, total: int) -> str:
    """The term that hides what comes behind a query, where the node asks for it: [length, total]."""
    if not attributes(e.source).get("unidirectional"):
        return ""
    return e.graph.constant(np.where(np.tri(length, total, total - length, bool), 0, -np.inf).astype(np.float32), f"{e.name}.causal")


def split(e: Expansion, x: str, shape: list[int]) -> str:
    """x as [batch, heads, positions, size], of [batch, positions, heads * size] in `shape`."""
    return e.add("Transpose", [e.reshape(x, shape)], perm=[0, 2, 1, 3])


def refuse(e: Expansion, *inputs: tuple[int, str]) -> None:
    for index, name in inputs:
        if e.input(index):
            raise error_at_node(e.source, f"{e.source.op_type} has the input {name}, expected none; export the model without this fusion")


RULES: dict[str, Rule] = {"Attention": _attention, "QAttention": _quantized_attention, "MultiHeadAttention": _multi_head}
