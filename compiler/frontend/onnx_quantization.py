"""Quantized ONNX operators spelled as DequantizeLinear -> float operator -> QuantizeLinear (decision 0001: one road).

Read from the ONNX operator definitions, ONNX Runtime's com.microsoft operators and QONNX (`onnx_qonnx`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.compiler.frontend import onnx_expansion, onnx_qonnx
from qcc.compiler.frontend.onnx_expansion import MICROSOFT, Expansion, Rule
from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node, node


def expand(graph: OnnxGraph) -> None:
    """Rewrite every quantized operator that has a spelling with QuantizeLinear and DequantizeLinear."""
    onnx_expansion.expand(graph, lambda source: _RULES.get((_family(source.domain), source.op_type)))


def _family(domain: str) -> str:
    return "qonnx" if domain in onnx_qonnx.DOMAINS or domain.startswith(("qonnx.", "finn.")) else domain


def _other_attributes(e: Expansion, *dropped: str) -> dict[str, Any]:
    return {k: v for k, v in attributes(e.source).items() if k not in dropped}


# -- ONNX ----------------------------------------------------------------------------------------------------------------------------


def _linear_convolution(e: Expansion) -> None:
    x, xs, xz, w, ws, wz, ys, yz = (e.input(i) for i in range(8))
    rank = _rank_of_last(e, e.graph.rank(w))
    operands = [_channels_first(e, e.dequantize(x, xs, xz), rank), e.dequantize(w, ws, wz, axis=0)]
    if bias := e.input(8):
        operands.append(e.dequantize(bias, _product(e, xs, ws), axis=0))
    y = e.add("Conv", operands, **_other_attributes(e, "channels_last"))
    e.quantize(_channels_last(e, y, rank), ys, yz, e.source.output[0])


def _rank_of_last(e: Expansion, rank: int | None) -> int:
    """The rank of a node's operand that has its channels last, 0 where they are first: only ONNX Runtime's own operators have them last."""
    return (rank or 4) if attributes(e.source).get("channels_last", 0) else 0


def _channels_first(e: Expansion, x: str, rank: int) -> str:
    return e.add("Transpose", [x], perm=[0, rank - 1, *range(1, rank - 1)]) if rank else x


def _channels_last(e: Expansion, x: str, rank: int, output: str = "") -> str:
    return e.add("Transpose", [x], output, perm=[0, *range(2, rank), 1]) if rank else x


def _product(e: Expansion, a: str, b: str) -> str:
    """Name of a * b in binary32: a constant where both are."""
    left, right = e.graph.array(a), e.graph.array(b)
    if left is None or right is None:
        return e.add("Mul", [a, b])
    return e.graph.constant((left.reshape(-1)[:1] * right.reshape(-1)).astype(np.float32).reshape(right.shape), f"{e.name}.bias_scale")


def _linear_matmul(e: Expansion) -> None:
    a, sa, za, b, sb, zb, sy, zy = (e.input(i) for i in range(8))
    left, right = e.dequantize(a, sa, za, axis=-2), e.dequantize(b, sb, zb, axis=-1)
    e.quantize(e.add("MatMul", [left, right]), sy, zy, e.source.output[0])


# -- com.microsoft -------------------------------------------------------------------------------------------------------------------


def _renamed(e: Expansion) -> None:
    e.nodes.append(node(e.source.op_type, list(e.source.input), list(e.source.output), e.name, **_other_attributes(e)))


def _linear_binary(op: str) -> Rule:
    def rule(e: Expansion) -> None:
        a, sa, za, b, sb, zb, sy, zy = (e.input(i) for i in range(8))
        e.quantize(e.add(op, [e.dequantize(a, sa, za), e.dequantize(b, sb, zb)]), sy, zy, e.source.output[0])

    return rule


def _linear_unary(op: str, *dropped: str) -> Rule:
    def rule(e: Expansion) -> None:
        x, sx, zx, sy, zy = (e.input(i) for i in range(5))
        rank = _rank_of_last(e, len(attributes(e.source).get("kernel_shape", [0, 0])) + 2)
        y = e.add(op, [_channels_first(e, e.dequantize(x, sx, zx), rank)], **_other_attributes(e, "channels_last", *dropped))
        e.quantize(_channels_last(e, y, rank), sy, zy, e.source.output[0])

    return rule


def _max_pool(e: Expansion) -> None:
    """Of integers whose channels are last."""
    rank = len(attributes(e.source)["kernel_shape"]) + 2
    y = e.add("MaxPool", [_channels_first(e, e.input(0), rank)], **_other_attributes(e))
    _channels_last(e, y, rank, e.source.output[0])


def _linear_concat(e: Expansion) -> None:
    sy, zy = e.input(0), e.input(1)
    parts = [e.dequantize(*e.source.input[i : i + 3]) for i in range(2, len(e.source.input), 3)]
    e.quantize(e.add("Concat", parts, **_other_attributes(e)), sy, zy, e.source.output[0])


def _linear_gemm(e: Expansion) -> None:
    a, sa, za, b, sb, zb, c, sy, zy = (e.input(i) for i in range(9))
    transposed = bool(attributes(e.source).get("transB", 0))
    operands = [e.dequantize(a, sa, za), e.dequantize(b, sb, zb, axis=0 if transposed else 1)]
    if c:
        operands.append(e.dequantize(c, _product(e, sa, sb), axis=-1))
    output = "" if sy else e.source.output[0]
    y = e.add("Gemm", operands, output, **_other_attributes(e))
    if sy:
        e.quantize(y, sy, zy, e.source.output[0])


def _linear_mean(e: Expansion) -> None:
    x, sx, zx, sy, zy = (e.input(i) for i in range(5))
    given = attributes(e.source)
    e.quantize(e.mean(e.dequantize(x, sx, zx), given["axes"], keepdims=given["keepdims"]), sy, zy, e.source.output[0])


def _linear_where(e: Expansion) -> None:
    chosen, a, sa, za, b, sb, zb, sy, zy = (e.input(i) for i in range(9))
    e.quantize(e.add("Where", [chosen, e.dequantize(a, sa, za), e.dequantize(b, sb, zb)]), sy, zy, e.source.output[0])


def _dynamic_matmul(e: Expansion) -> None:
    """a in floats, which is quantized here; b, its scale and zero point, bias."""
    a, b, sb, zb, bias = (e.input(i) for i in range(5))
    levels = [e.graph.fresh(a) for _ in range(3)]
    e.nodes.append(node("DynamicQuantizeLinear", [a], levels, e.name))
    _product_of_integers(e, levels, [b, sb, zb], bias)


def _integer_matmul(e: Expansion) -> None:
    a, b, sa, sb, za, zb, bias = (e.input(i) for i in range(7))
    _product_of_integers(e, [a, sa, za], [b, sb, zb], bias)


def _product_of_integers(e: Expansion, a: list[str], b: list[str], bias: str) -> None:
    """a times b, each integers, scale and zero point, those of b one or one per column; plus bias."""
    y = e.add("MatMul", [e.dequantize(*a), e.dequantize(*b, axis=-1)], "" if bias else e.source.output[0])
    if bias:
        e.add("Add", [y, bias], e.source.output[0])


def _matmul_nbits(e: Expansion) -> None:
    """MatMulNBits: A [..., k] times B [n, blocks, block * bits / 8] u8, low bits first; scales [n * blocks].

    Zero points default to the middle of the range.
    """
    given = attributes(e.source)
    bits, block, k, n = (int(given[key]) for key in ("bits", "block_size", "K", "N"))
    if e.input(4):
        raise error_at_node(e.source, "MatMulNBits with g_idx is not supported; expected blocks in their natural order")
    packed, scales = e.constant_input(1, "weight"), e.constant_input(2, "scale")
    blocks = -(-k // block)
    levels = unpack(packed.reshape(n * blocks, -1), bits, block).reshape(n, blocks * block)[:, :k]  # [n, k] u8
    zero = e.graph.array(e.input(3))
    if e.input(3) and zero is None:
        raise error_at_node(e.source, "the zero point of MatMulNBits is computed at run time, expected a constant")
    if zero is None:
        zeros = np.full((n, blocks), 1 << (bits - 1), np.uint8)
    elif zero.dtype == np.uint8:
        zeros = unpack(zero.reshape(n, -1), bits, blocks)  # every row starts at a new byte
    else:
        raise error_at_node(e.source, f"the zero point of MatMulNBits is {zero.dtype}, expected packed uint8")
    weight = e.graph.constant(levels, f"{e.name}.weight")
    scale = e.graph.constant(scales.reshape(n, blocks).astype(np.float32), f"{e.name}.scale")
    zero_point = e.graph.constant(zeros, f"{e.name}.zero_point")
    w = e.dequantize(weight, scale, zero_point, axis=1, block_size=block, bits=bits)
    y = e.add("MatMul", [e.input(0), e.add("Transpose", [w], perm=[1, 0])], "" if e.input(5) else e.source.output[0])
    if e.input(5):
        e.add("Add", [y, e.input(5)], e.source.output[0])


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` values of `bits` bits of every row of `packed` [rows, bytes] u8, lowest bits first: [rows, count] u8."""
    stream = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")[:, : count * bits].reshape(packed.shape[0], count, bits)
    return (stream.astype(np.uint8) << np.arange(bits, dtype=np.uint8)).sum(axis=2).astype(np.uint8)


_RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _linear_convolution,
    ("", "QLinearMatMul"): _linear_matmul,
    (MICROSOFT, "QuantizeLinear"): _renamed,
    (MICROSOFT, "DequantizeLinear"): _renamed,
    (MICROSOFT, "QLinearConv"): _linear_convolution,
    (MICROSOFT, "QLinearAdd"): _linear_binary("Add"),
    (MICROSOFT, "QLinearMul"): _linear_binary("Mul"),
    (MICROSOFT, "QLinearSigmoid"): _linear_unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _linear_unary("LeakyRelu"),
    (MICROSOFT, "QLinearSoftmax"): _linear_unary("Softmax", "opset"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _linear_unary("GlobalAveragePool"),
    (MICROSOFT, "QLinearAveragePool"): _linear_unary("AveragePool"),
    (MICROSOFT, "NhwcMaxPool"): _max_pool,
    (MICROSOFT, "QLinearConcat"): _linear_concat,
    (MICROSOFT, "QGemm"): _linear_gemm,
    (MICROSOFT, "QLinearReduceMean"): _linear_mean,
    (MICROSOFT, "QLinearWhere"): _linear_where,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_matmul,
    (MICROSOFT, "MatMulIntegerToFloat"): _integer_matmul,
    (MICROSOFT, "MatMulNBits"): _matmul_nbits,
    **{("qonnx", name): rule for name, rule in onnx_qonnx.RULES.items()},
}
