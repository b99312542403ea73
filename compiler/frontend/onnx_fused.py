"""Operators of ONNX Runtime's own whose spelling in ONNX's depends on the shapes of what they read; attention is in files of its own.

Behind one of them no type is known, so they are written out from the front of the model to its end, a round of shape inference for each.
Read from ONNX Runtime's list of contributed operators.
"""

from __future__ import annotations

import numpy as np
import onnx

from qcc.compiler.frontend import onnx_attention, onnx_expansion, onnx_grouped_attention
from qcc.compiler.frontend.onnx_contrib import norm
from qcc.compiler.frontend.onnx_expansion import MICROSOFT, Expansion, Rule
from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node
from qcc.compiler.frontend.onnx_quantization import unpack


def write_out(graph: OnnxGraph) -> bool:
    """Rewrite in place the nodes whose operands have known shapes; whether there was one. Needs `graph.kinds`."""
    return onnx_expansion.expand(graph, lambda source: _RULES.get(source.op_type) if _is_known(graph, source) else None)


def _is_known(graph: OnnxGraph, source: onnx.NodeProto) -> bool:
    shapes = [graph.kinds.get(name, (0, (None,)))[1] for name in source.input if name]
    return source.domain == MICROSOFT and not any(None in shape for shape in shapes)


# -- products and softmax ------------------------------------------------------------------------------------------------------------


def _matmul(e: Expansion) -> None:
    """alpha a b, each transposed first: `transBatch` moves the first axis to the last but one, `trans` then swaps the last two."""
    given = attributes(e.source)
    operands = [_transposed(e, i, given.get(f"transBatch{side}", 0), given.get(f"trans{side}", 0)) for i, side in enumerate("AB")]
    alpha = given.get("alpha", 1.0)
    y = e.add("MatMul", operands, e.source.output[0] if alpha == 1 else "")
    if alpha != 1:
        e.add("Mul", [y, e.number(alpha)], e.source.output[0])


def _transposed(e: Expansion, index: int, batch: int, last: int) -> str:
    order = list(range(len(e.shape(index))))
    if batch:
        order = [*order[1:-1], order[0], order[-1]]
    if last and len(order) > 1:
        order[-2:] = order[-1], order[-2]
    return e.input(index) if order == sorted(order) else e.add("Transpose", [e.input(index)], perm=order)


def _bias_softmax(e: Expansion) -> None:
    axis, rank = attributes(e.source).get("axis", 1), len(e.shape(0))
    if axis not in (-1, rank - 1):
        raise error_at_node(e.source, f"BiasSoftmax has axis {axis} of {rank}, expected the last; export the model without this fusion")
    e.add("Softmax", [e.add("Add", [e.input(0), e.input(1)])], e.source.output[0], axis=-1)


# -- embeddings ----------------------------------------------------------------------------------------------------------------------


def _embed_norm(e: Expansion) -> None:
    """Numbers of words and segments, tables of words, positions and segments, gamma, beta, mask, numbers of positions."""
    _embedded(e, [e.input(i) for i in (2, 3, 4)], e.input(5), e.input(6), e.input(8))


def _quantized_embed_norm(e: Expansion) -> None:
    """The same with every constant quantized: values 2 to 6, scales 8 to 12, zero points 13 to 17."""
    tables = [e.input(i) and e.dequantize(e.input(i), e.input(i + 6), e.input(i + 11)) for i in range(2, 7)]
    _embedded(e, tables[:3], tables[3], tables[4], "")


def _embedded(e: Expansion, tables: list[str], gamma: str, beta: str, positions: str) -> None:
    """The norm of the sum of rows, the number of words of every row of the mask, and the sum."""
    words, length = e.shape(0), e.shape(0)[1]
    rows = positions or e.integers(range(length))
    x = e.add("Add", [e.add("Gather", [tables[0], e.input(0)]), e.add("Gather", [tables[1], rows])])
    if e.input(1):
        x = e.add("Add", [x, e.add("Gather", [tables[2], e.input(1)])])
    results = [*e.source.output, "", ""]
    if results[2]:
        e.add("Identity", [x], results[2])
    norm(e, x, gamma, beta, centred=True)
    if results[1] and e.input(7):
        e.add("ReduceSum", [e.input(7), e.integers([1])], results[1], keepdims=0)
    elif results[1]:
        e.add("Identity", [e.graph.constant(np.zeros(words[0], np.int32), "lengths")], results[1])


def _gather_blocks(e: Expansion) -> None:
    """Rows of a table in blocks: the table stays packed, and rows are taken apart, in floats, once they are chosen.

    Table [rows, columns] of 4-bit integers, or [rows, columns * bits / 8] u8, low bits first; scales and zero points [rows, blocks].
    The values of a byte are far apart in a block here, so that what is taken out of all bytes is next to each other.
    """
    given, scales = attributes(e.source), e.constant_input(2, "scale").astype(np.float32)
    codes, zeros, bits = _codes_and_zeros(e, given.get("bits", 4), scales)
    block, gather, quantize = given.get("block_size", 128), given.get("gather_axis", 0), given.get("quantize_axis", 1)
    if codes.ndim != 2 or gather not in (0, -2) or quantize not in (1, -1) or codes.shape[1] != scales.shape[1] * block:
        raise error_at_node(
            e.source,
            f"GatherBlockQuantized has a table of shape {list(codes.shape)}, scales {list(scales.shape)}, block_size {block}, gather_axis "
            f"{gather} and quantize_axis {quantize}, expected a matrix, whole blocks, and axes 0 and 1; "
            "export the model with DequantizeLinear and Gather",
        )
    (rows, blocks), parts, chosen = scales.shape, 8 // bits, e.shape(1)
    packed = np.zeros((rows, blocks, block // parts), np.uint8)
    for i, part in enumerate(np.split(codes.reshape(rows, blocks, block), parts, axis=2)):
        packed |= part << np.uint8(bits * i)
    x = _rows(e, packed.reshape(rows, -1), [*chosen, blocks, block // parts])
    taken: list[str] = []
    for _ in range(parts - 1):
        upper = e.add("Floor", [e.add("Mul", [x, e.number(0.5**bits)])])
        taken.append(e.add("Sub", [x, e.add("Mul", [upper, e.number(2**bits)])]))
        x = upper
    x = e.add("Concat", [*taken, x], axis=-1) if taken else x
    same = np.all(zeros == zeros[0, 0])
    x = e.add("Sub", [x, e.number(zeros[0, 0]) if same else _rows(e, zeros, [*chosen, blocks, 1])])
    e.reshape(e.add("Mul", [x, _rows(e, scales, [*chosen, blocks, 1])]), [*chosen, blocks * block], e.source.output[0])


def _rows(e: Expansion, table: np.ndarray, shape: list[int]) -> str:
    """The rows of a constant that the node's indices choose; of u8 they are floats once they are chosen."""
    name = e.graph.constant(table, f"{e.name}.table")
    values = name if table.dtype == np.float32 else e.dequantize(name, e.number(1))
    return e.reshape(e.add("Gather", [values, e.input(1)]), shape)


def _codes_and_zeros(e: Expansion, bits: int, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Both without a sign, one to a byte; signed ones moved up by half their range."""
    codes, zeros = e.constant_input(0, "table"), e.constant_input(3, "zero point") if e.input(3) else None
    kind = codes.dtype.name
    if kind in ("int4", "uint4"):
        up = 8 if kind == "int4" else 0
        codes, zeros = (None if x is None else (x.astype(np.int8) + up).astype(np.uint8) for x in (codes, zeros))
        assert codes is not None
        return codes, np.full(scales.shape, up, np.uint8) if zeros is None else zeros, 4
    if kind != "uint8" or codes.ndim != 2 or scales.ndim != 2:
        raise error_at_node(
            e.source, f"the table of GatherBlockQuantized is {kind} of {codes.ndim} axes, expected a matrix of int4, uint4 or packed uint8"
        )
    middle = np.full(scales.shape, 1 << (bits - 1), np.uint8)
    return (
        unpack(codes, bits, codes.shape[1] * 8 // bits),
        middle if zeros is None else unpack(zeros.reshape(len(scales), -1), bits, scales.shape[1]),
        bits,
    )


# -- norms ---------------------------------------------------------------------------------------------------------------------------


def _group_norm(e: Expansion) -> None:
    """x, gamma, beta."""
    _normed_groups(e, e.input(0))


def _skip_group_norm(e: Expansion) -> None:
    """x, gamma, beta, skip, bias; the sum is the second result."""
    skip, last = e.input(3), attributes(e.source).get("channels_last", 1)
    if len(e.shape(3)) == 2:
        n, c = e.shape(3)
        skip = e.reshape(skip, [n, 1, 1, c] if last else [n, c, 1, 1])
    bias = e.input(4) and e.reshape(e.input(4), [-1] if last else [-1, 1, 1])
    total = e.source.output[1] if len(e.source.output) > 1 else ""
    x = e.add("Add", [e.input(0), skip], "" if bias else total)
    _normed_groups(e, e.add("Add", [x, bias], total) if bias else x)


def _normed_groups(e: Expansion, x: str) -> None:
    given, shape = attributes(e.source), e.shape(0)
    last, groups = given.get("channels_last", 1), given["groups"]
    n, c, h, w = [shape[0], shape[3], *shape[1:3]] if last else shape
    x = e.add("Transpose", [x], perm=[0, 3, 1, 2]) if last else x
    ones, zeros = (e.graph.constant(np.full(groups, v, np.float32), "number") for v in (1, 0))
    x = e.add("InstanceNormalization", [e.reshape(x, [n, groups, -1]), ones, zeros], epsilon=given.get("epsilon", 1e-5))
    gamma, beta = (e.reshape(e.input(i), [c, 1, 1]) for i in (1, 2))
    x = e.add("Add", [e.add("Mul", [e.reshape(x, [n, c, h, w]), gamma]), beta])
    x = e.add("Mul", [x, e.add("Sigmoid", [x])]) if given["activation"] else x
    e.add("Transpose" if last else "Identity", [x], e.source.output[0], perm=[0, 2, 3, 1] if last else None)


_RULES: dict[str, Rule] = {
    "FusedMatMul": _matmul,
    "TransposeMatMul": _matmul,
    "BiasSoftmax": _bias_softmax,
    "EmbedLayerNormalization": _embed_norm,
    "QEmbedLayerNormalization": _quantized_embed_norm,
    "GatherBlockQuantized": _gather_blocks,
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _skip_group_norm,
    **onnx_attention.RULES,
    **onnx_grouped_attention.RULES,
}
