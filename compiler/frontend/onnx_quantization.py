"""Quantized ONNX operators spelled as DequantizeLinear -> float operator -> QuantizeLinear (decision 0001: one road).

Read from the ONNX operator definitions, ONNX Runtime's com.microsoft operators and QONNX (Pappalardo et al., "QONNX: Representing
Arbitrary-Precision Quantized Neural Networks", 2022). QuantizeLinear and DequantizeLinear nodes carry two attributes of qcc's own for
what ONNX cannot say: `bits` (a width that is not the container's) and `narrow` (the least value is not used).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node, label, node

QONNX_DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "qonnx.custom_op.channels_last", "onnx.brevitas", "qonnx", "finn")
MICROSOFT = "com.microsoft"
GREATEST_BITS = 16  # of a run-time value; constants (biases) go to 32


@dataclass
class _Expansion:
    """The nodes that take one node's place."""

    graph: OnnxGraph
    source: onnx.NodeProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    @property
    def name(self) -> str:
        return label(self.source)

    def add(self, op: str, inputs: list[str], output: str = "", **given: Any) -> str:
        output = output or self.graph.fresh(self.source.output[0])
        self.nodes.append(node(op, inputs, [output], self.name, **given))
        return output

    def dequantize(self, x: str, scale: str, zero_point: str = "", **given: Any) -> str:
        return self.add("DequantizeLinear", _trim([x, scale, zero_point]), **given)

    def quantize(self, x: str, scale: str, zero_point: str = "", output: str = "", **given: Any) -> str:
        return self.add("QuantizeLinear", _trim([x, scale, zero_point]), output, **given)

    def input(self, index: int) -> str:
        return self.source.input[index] if index < len(self.source.input) else ""

    def fake_quantize(
        self, stored: np.ndarray | None, scale: np.ndarray, zero: np.ndarray, bits: int, signed: bool, narrow: bool, of: str = ""
    ) -> None:
        """Quantize and dequantize input 0 (or value `of`), per tensor or along one axis; `stored` holds the levels of a constant."""
        container = np.dtype(f"{'' if signed else 'u'}int{8 if bits <= 8 else 16 if bits <= 16 else 32}")
        axis = self._parameter_axis(scale, zero)
        scales, zeros = np.broadcast_arrays(scale.astype(np.float32), zero) if axis is not None else (scale.reshape(-1)[0], zero)
        shape = () if axis is None else (-1,)
        scale_name = self.graph.constant(scales.astype(np.float32).reshape(shape), f"{self.name}.scale")
        zero_name = self.graph.constant(zeros.astype(container).reshape(shape), f"{self.name}.zero_point")
        given: dict[str, Any] = {"axis": axis, "bits": bits, "narrow": int(narrow)}
        if stored is None:
            x = self.quantize(of or self.input(0), scale_name, zero_name, **given)
        else:
            x = self.graph.constant(stored.astype(container), f"{self.name}.weight")
        self.add("DequantizeLinear", [x, scale_name, zero_name], self.source.output[0], **given)

    def _parameter_axis(self, scale: np.ndarray, zero: np.ndarray) -> int | None:
        """The axis, counted from the last, along which scale or zero point vary; None where there is one of each."""
        axes = {i - a.ndim for a in (scale, zero) for i, size in enumerate(a.shape) if size != 1}
        if len(axes) > 1:
            shapes = f"{list(scale.shape)} and {list(zero.shape)}"
            raise error_at_node(self.source, f"scale and zero point have shapes {shapes}, expected them to vary along one axis only")
        return axes.pop() if axes else None

    def constant_input(self, index: int, what: str) -> np.ndarray:
        """The value of an input that has to be known; raises QccError that says `what` it is."""
        array = self.graph.array(self.input(index))
        if array is None:
            raise error_at_node(
                self.source,
                f"{what} of {self.source.op_type} is computed at run time, expected a constant",
            )
        return array


def expand(graph: OnnxGraph) -> None:
    """Rewrite every quantized operator that has a spelling with QuantizeLinear and DequantizeLinear."""
    nodes: list[onnx.NodeProto] = []
    for source in graph.nodes:
        rule = _RULES.get((_family(source.domain), source.op_type))
        if rule is None:
            nodes.append(source)
            continue
        expansion = _Expansion(graph, source)
        rule(expansion)
        nodes += expansion.nodes
    graph.nodes = nodes


def _family(domain: str) -> str:
    return "qonnx" if domain in QONNX_DOMAINS or domain.startswith(("qonnx.", "finn.")) else domain


def _trim(names: list[str]) -> list[str]:
    while names and not names[-1]:
        names.pop()
    return names


def _other_attributes(e: _Expansion, *dropped: str) -> dict[str, Any]:
    return {k: v for k, v in attributes(e.source).items() if k not in dropped}


# -- ONNX ----------------------------------------------------------------------------------------------------------------------------


def _linear_convolution(e: _Expansion) -> None:
    x, xs, xz, w, ws, wz, ys, yz = (e.input(i) for i in range(8))
    operands = [e.dequantize(x, xs, xz), e.dequantize(w, ws, wz, axis=0)]
    if bias := e.input(8):
        operands.append(e.dequantize(bias, _product(e, xs, ws), axis=0))
    e.quantize(e.add("Conv", operands, **_other_attributes(e)), ys, yz, e.source.output[0])


def _product(e: _Expansion, a: str, b: str) -> str:
    """Name of a * b in binary32: a constant where both are."""
    left, right = e.graph.array(a), e.graph.array(b)
    if left is None or right is None:
        return e.add("Mul", [a, b])
    return e.graph.constant((left.reshape(-1)[:1] * right.reshape(-1)).astype(np.float32).reshape(right.shape), f"{e.name}.bias_scale")


def _linear_matmul(e: _Expansion) -> None:
    a, sa, za, b, sb, zb, sy, zy = (e.input(i) for i in range(8))
    left, right = e.dequantize(a, sa, za, axis=-2), e.dequantize(b, sb, zb, axis=-1)
    e.quantize(e.add("MatMul", [left, right]), sy, zy, e.source.output[0])


# -- com.microsoft -------------------------------------------------------------------------------------------------------------------


def _renamed(e: _Expansion) -> None:
    e.nodes.append(node(e.source.op_type, list(e.source.input), list(e.source.output), e.name, **_other_attributes(e)))


def _linear_binary(op: str) -> Callable[[_Expansion], None]:
    def rule(e: _Expansion) -> None:
        a, sa, za, b, sb, zb, sy, zy = (e.input(i) for i in range(8))
        e.quantize(e.add(op, [e.dequantize(a, sa, za), e.dequantize(b, sb, zb)]), sy, zy, e.source.output[0])

    return rule


def _linear_unary(op: str, *dropped: str) -> Callable[[_Expansion], None]:
    def rule(e: _Expansion) -> None:
        x, sx, zx, sy, zy = (e.input(i) for i in range(5))
        if attributes(e.source).get("channels_last"):
            raise error_at_node(e.source, f"{e.source.op_type} has channels_last = 1, expected 0; export the model with channels first")
        e.quantize(e.add(op, [e.dequantize(x, sx, zx)], **_other_attributes(e, "channels_last", *dropped)), sy, zy, e.source.output[0])

    return rule


def _linear_concat(e: _Expansion) -> None:
    sy, zy = e.input(0), e.input(1)
    parts = [e.dequantize(*e.source.input[i : i + 3]) for i in range(2, len(e.source.input), 3)]
    e.quantize(e.add("Concat", parts, **_other_attributes(e)), sy, zy, e.source.output[0])


def _linear_gemm(e: _Expansion) -> None:
    a, sa, za, b, sb, zb, c, sy, zy = (e.input(i) for i in range(9))
    transposed = bool(attributes(e.source).get("transB", 0))
    operands = [e.dequantize(a, sa, za), e.dequantize(b, sb, zb, axis=0 if transposed else 1)]
    if c:
        operands.append(e.dequantize(c, _product(e, sa, sb), axis=-1))
    output = "" if sy else e.source.output[0]
    y = e.add("Gemm", operands, output, **_other_attributes(e))
    if sy:
        e.quantize(y, sy, zy, e.source.output[0])


def _matmul_nbits(e: _Expansion) -> None:
    """MatMulNBits: A [..., k] times B [n, blocks, block * bits / 8] u8, low bits first; scales [n * blocks].

    Zero points default to the middle of the range.
    """
    given = attributes(e.source)
    bits, block, k, n = (int(given[key]) for key in ("bits", "block_size", "K", "N"))
    if e.input(4):
        raise error_at_node(e.source, "MatMulNBits with g_idx is not supported; expected blocks in their natural order")
    packed, scales = e.constant_input(1, "weight"), e.constant_input(2, "scale")
    blocks = -(-k // block)
    levels = _unpack(packed.reshape(n * blocks, -1), bits, block).reshape(n, blocks * block)[:, :k]  # [n, k] u8
    zero = e.graph.array(e.input(3))
    if e.input(3) and zero is None:
        raise error_at_node(e.source, "the zero point of MatMulNBits is computed at run time, expected a constant")
    if zero is None:
        zeros = np.full((n, blocks), 1 << (bits - 1), np.uint8)
    elif zero.dtype == np.uint8:
        zeros = _unpack(zero.reshape(n, -1), bits, blocks)  # every row starts at a new byte
    else:
        raise error_at_node(e.source, f"the zero point of MatMulNBits is {zero.dtype}, expected packed uint8")
    weight = e.graph.constant(levels, f"{e.name}.weight")
    scale = e.graph.constant(scales.reshape(n, blocks).astype(np.float32), f"{e.name}.scale")
    zero_point = e.graph.constant(zeros, f"{e.name}.zero_point")
    w = e.dequantize(weight, scale, zero_point, axis=1, block_size=block, bits=bits)
    y = e.add("MatMul", [e.input(0), e.add("Transpose", [w], perm=[1, 0])], "" if e.input(5) else e.source.output[0])
    if e.input(5):
        e.add("Add", [y, e.input(5)], e.source.output[0])


def _unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` values of `bits` bits of every row of `packed` [rows, bytes] u8, lowest bits first: [rows, count] u8."""
    stream = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")[:, : count * bits].reshape(packed.shape[0], count, bits)
    return (stream.astype(np.uint8) << np.arange(bits, dtype=np.uint8)).sum(axis=2).astype(np.uint8)


# -- QONNX ---------------------------------------------------------------------------------------------------------------------------


def _quant(e: _Expansion) -> None:
    """Quant(x, scale, zero_point, bit_width): (clip(round(x / scale + zero_point)) - zero_point) * scale."""
    given = attributes(e.source)
    signed, narrow = bool(given.get("signed", 1)), bool(given.get("narrow", 0))
    bits = _bit_width(e)
    scale, zero = e.constant_input(1, "the scale"), e.constant_input(2, "the zero point")
    if not np.array_equal(zero, np.rint(zero)):
        raise error_at_node(e.source, f"the zero point of Quant is {zero.reshape(-1)[0]}, expected an integer")
    rounding = str(given.get("rounding_mode", "ROUND")).upper()
    low = (-(1 << (bits - 1)) + narrow) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - narrow
    x = e.graph.array(e.input(0))
    if x is not None:
        if rounding not in _ROUNDING:
            raise error_at_node(e.source, f"rounding_mode of Quant is {rounding}, expected one of {', '.join(_ROUNDING)}")
        rounded = _ROUNDING[rounding](x / scale.astype(np.float32) + zero.astype(np.float32))
        e.fake_quantize(np.clip(rounded, low, high), scale, zero, bits, signed, narrow)
        return
    if rounding not in ("ROUND", "HALF_EVEN"):
        raise error_at_node(e.source, f"Quant rounds a run-time value by {rounding}, expected ROUND (half to even)")
    if bits > GREATEST_BITS:
        raise error_at_node(e.source, f"Quant has bit width {bits} on a run-time value, expected 1 to {GREATEST_BITS}")
    e.fake_quantize(None, scale, zero, bits, signed, narrow)


def _bipolar_quant(e: _Expansion) -> None:
    """BipolarQuant(x, scale): scale where x >= 0, else -scale; stored as the narrow 2-bit integers -1 and 1."""
    scale = e.constant_input(1, "the scale")
    zero = np.zeros((), np.float32)
    x = e.graph.array(e.input(0))
    if x is not None:
        e.fake_quantize(np.where(x >= 0, 1, -1), scale, zero, 2, True, True)
        return
    positive, negative = (e.graph.constant(v.astype(np.float32), f"{e.name}.level") for v in (scale, -scale))
    above = e.add("GreaterOrEqual", [e.input(0), e.graph.constant(np.zeros((), np.float32), f"{e.name}.threshold")])
    e.fake_quantize(None, scale, zero, 2, True, True, of=e.add("Where", [above, positive, negative]))


def _bit_width(e: _Expansion) -> int:
    width = e.constant_input(3, "the bit width").reshape(-1)
    if width.size != 1 or width[0] != int(width[0]) or not 1 <= int(width[0]) <= 32:
        raise error_at_node(e.source, f"the bit width of Quant is {width.tolist()}, expected one whole number from 1 to 32")
    return int(width[0])


_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
    "UP": lambda v: np.sign(v) * np.ceil(np.abs(v)),
    "DOWN": np.trunc,
    "HALF_UP": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
    "HALF_DOWN": lambda v: np.sign(v) * np.ceil(np.abs(v) - 0.5),
}

_RULES: dict[tuple[str, str], Callable[[_Expansion], None]] = {
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
    (MICROSOFT, "QLinearConcat"): _linear_concat,
    (MICROSOFT, "QGemm"): _linear_gemm,
    (MICROSOFT, "MatMulNBits"): _matmul_nbits,
    ("qonnx", "Quant"): _quant,
    ("qonnx", "IntQuant"): _quant,
    ("qonnx", "BipolarQuant"): _bipolar_quant,
}
