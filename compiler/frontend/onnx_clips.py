"""Clip between QuantizeLinear and DequantizeLinear: how exporters state ranges that ONNX has no integer type for (QCDQ, of Brevitas).

    QuantizeLinear -> Clip(0, 15) -> DequantizeLinear      becomes      QuantizeLinear {bits = 4} -> DequantizeLinear {bits = 4}

`bits` and `narrow` are the attributes of `onnx_quantization`; `onnx_integers` hands them on to what reads the integers. A range that is not
that of a width is cut from the real values in front of QuantizeLinear, which is monotone. Weights are cut here, whatever their size.
"""

from __future__ import annotations

import numpy as np
import onnx

from qcc.compiler.frontend.onnx_graph import OnnxGraph, label, node


def state_ranges(graph: OnnxGraph) -> None:
    """Rewrite in place every Clip of integers whose bounds are constants."""
    makers = {n.output[0]: n for n in graph.nodes if n.op_type == "QuantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for source in graph.nodes:
        bounds = _bounds(graph, source)
        if bounds is None:
            nodes.append(source)
        elif (array := graph.array(source.input[0])) is not None:
            graph.arrays[source.output[0]] = np.clip(array, *bounds)
        elif (maker := makers.get(source.input[0])) is not None and _is_constant(graph, maker):
            nodes += _quantized(graph, source, maker, *bounds)
        else:
            nodes.append(source)
    graph.nodes = nodes


def _bounds(graph: OnnxGraph, source: onnx.NodeProto) -> tuple[np.integer, np.integer] | None:
    """Constant bounds of a Clip of integers of at most 16 bits, those of the type where one is absent."""
    if source.op_type != "Clip" or source.domain or any(o.name == source.output[0] for o in graph.outputs):
        return None
    kind = next((a.dtype for name in source.input if name and (a := graph.array(name)) is not None), None)
    if kind is None or kind.kind not in "iu" or kind.itemsize > 2:
        return None
    found = [np.iinfo(kind).min, np.iinfo(kind).max]
    for i, name in enumerate(source.input[1:3]):
        array = graph.array(name)
        if name and array is None:
            return None
        if array is not None:
            found[i] = int(array.reshape(-1)[0])
    return kind.type(found[0]), kind.type(found[1])


def _is_constant(graph: OnnxGraph, maker: onnx.NodeProto) -> bool:
    """Whether scale and zero point are known, one of each."""
    known = [graph.array(name) for name in maker.input[1:3] if name]
    return all(a is not None and a.size == 1 for a in known)


def _quantized(graph: OnnxGraph, source: onnx.NodeProto, maker: onnx.NodeProto, low: np.integer, high: np.integer) -> list[onnx.NodeProto]:
    """QuantizeLinear once more, to the range low..high."""
    zero = graph.array(maker.input[2]) if len(maker.input) > 2 else None
    point, signed = 0 if zero is None else int(zero.reshape(-1)[0]), np.iinfo(low.dtype).min < 0
    bits = _bits(min(int(low), point), max(int(high), point), signed)
    least, greatest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    narrow = int((low, high) == (least + 1, greatest) if signed else (low, high) == (0, greatest - 1))
    x, nodes = maker.input[0], list[onnx.NodeProto]()
    if not narrow and (low, high) != (least, greatest):
        scale = graph.arrays[maker.input[1]].reshape(-1)[0]
        ends = [graph.constant((np.float64(int(end) - point) * scale).astype(scale.dtype), f"{label(source)}.bound") for end in (low, high)]
        x = graph.fresh(x)
        nodes.append(node("Clip", [maker.input[0], *ends], [x], label(source)))
    return [*nodes, node("QuantizeLinear", [x, *maker.input[1:]], [source.output[0]], label(maker), bits=bits, narrow=narrow)]


def _bits(low: int, high: int, signed: bool) -> int:
    """The least width of integers that holds low..high."""
    if not signed:
        return max(high.bit_length(), 1)
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1
