"""Predicted time of every storage form that the target has a codelet for, and where each begins to pay.

Times are those of one call on one thread of a shipped machine description: where a model is compiled must not change its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qcc.dialects import codelet_cost
from qcc.dialects.codelet import SparseLanes
from qcc.dialects.element_types import are_bfloat16
from qcc.dialects.encodings import Encoding
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.mlir import ir
from qcc.dialects.stream_layout import QUAD
from qcc.passes.integer._float_times import linear
from qcc.passes.tile.codelets import sparse, stream, stream_zeros
from qcc.passes.tile.codelets.weight_codes import Codes, codes_of
from qcc.passes.values import constant_array, producer, shape_of

CSR = Encoding("csr", {"index_bits": 16, "relative": False})
BITMAP = Encoding("bitmap")


@dataclass(frozen=True)
class Form:
    """A storage form of one layer: what a codelet reads of it, and the time of its codelets, both by density; `real`: of the real values of
    quantized weights."""

    encoding: Encoding
    stored_bytes: Callable[[float], int]
    microseconds: Callable[[float], float]
    real: bool = False


@dataclass(frozen=True)
class Target:
    """What decides which codelets there are: see `lower-to-codelets`."""

    isa: str
    activations: str
    byte_expand: bool
    weights_bytes: int  # of the model

    def time(self, codelet: Any, stored_bytes: int) -> float:
        found = codelet_cost.cost(codelet, shipped(self.isa), weights_bytes=self.weights_bytes, stored_bytes=stored_bytes)
        assert found is not None, f"no model of {codelet.kind}"
        return found.microseconds


def forms(op: Any, target: Target) -> list[Form]:
    """Dense first, then the forms of product `op` without zeros that the target computes; empty where only dense has a codelet."""
    if op.name != "qcc.linear":
        return _pointwise(op, target) if sparse.is_pointwise(op) else []
    dequantize = producer(op.operands[1], "qcc.dequantize")
    if dequantize is not None:
        return _weight_only(op, dequantize, target)
    kinds = [ir.RankedTensorType(v.type) for v in (op.operands[1], op.results[0])]
    if not all(isinstance(kind.element_type, ir.F32Type) for kind in kinds):
        return []
    return _real(op, target)


def _rows(op: Any) -> int:
    return math.prod(shape_of(op.operands[0])[:-1])


def _pointwise(op: Any, target: Target) -> list[Form]:
    """A 1x1 convolution of f32 weights, or of the real values of quantized ones."""
    real = producer(op.operands[1], "qcc.dequantize") is not None
    kinds = [ir.RankedTensorType(op.operands[i].type).element_type for i in (0, 1)]
    if not all(isinstance(kind, ir.F32Type) for kind in (*kinds, ir.RankedTensorType(op.results[0].type).element_type)):
        return []
    (n, _, height, width), (channels, k, *_) = shape_of(op.results[0]), shape_of(op.operands[1])
    rows = n * height * width
    w = None if real else constant_array(op.operands[1])
    in_bf16 = w is not None and ISAS[target.isa].bf16_products and are_bfloat16(w)
    if rows <= sparse.MOST_GATHERED_ROWS or in_bf16:
        return []
    dense = linear(target.isa, rows, channels, k)
    found = Form(Encoding(), lambda _: 4 * channels * k, lambda _: target.time(dense, 4 * channels * k))
    return [found, *(replace(form, real=real) for form in _real_forms(target, rows, channels, k, (CSR,)))]


def _real(op: Any, target: Target) -> list[Form]:
    """f32 weights."""
    w, rows = constant_array(op.operands[1]), _rows(op)
    assert w is not None
    channels, k = w.shape
    half = are_bfloat16(w)  # the dense codelet keeps bfloat16, the others do not
    if half and ISAS[target.isa].tiles:
        return []  # a matrix unit computes them
    dense, dense_bytes = linear(target.isa, rows, channels, k, "bf16" if half else "f32"), (2 if half else 4) * channels * k
    return [
        Form(Encoding(), lambda _: dense_bytes, lambda _: target.time(dense, dense_bytes)),
        *_real_forms(target, rows, channels, k, (BITMAP, CSR)),
    ]


def _real_forms(target: Target, rows: int, channels: int, k: int, encodings: Sequence[Encoding]) -> list[Form]:
    able = (e for e in encodings if sparse.configuration(e.kind, target.isa, rows, channels, k, 0.5) is not None)
    return [_real_form(encoding, target, rows, channels, k) for encoding in able]


def _real_form(encoding: Encoding, target: Target, rows: int, channels: int, k: int) -> Form:
    def size(density: float) -> int:
        codelet = sparse.configuration(encoding.kind, target.isa, rows, channels, k, density)
        assert codelet is not None
        return sparse.expected_bytes(codelet, density)

    def time(density: float) -> float:
        codelet = sparse.configuration(encoding.kind, target.isa, rows, channels, k, density)
        assert codelet is not None
        turned = target.time(sparse.row_lanes(codelet), 0) if isinstance(codelet, SparseLanes) else 0.0
        return turned + target.time(codelet, size(density))

    return Form(encoding, size, time)


def _weight_only(op: Any, dequantize: Any, target: Target) -> list[Form]:
    """Quantized weights that a streamed codelet decodes, and their real values without zeros where x has many rows and may stay real."""
    stored, kind = constant_array(dequantize.operands[0]), ir.RankedTensorType(dequantize.operands[0].type)
    codes = None if stored is None or "multiplier" in dequantize.attributes else codes_of(stored, kind)
    if codes is None or codes.repeats > 1:
        return []
    rows, (n, k) = _rows(op), codes.codes.shape
    able = {
        kind: stream.choose(target.isa, target.activations, codes, rows, kind, byte_expand=target.byte_expand)
        for kind in ("dense", *stream_zeros.KINDS)
    }
    dense = stream.configuration(target.isa, codes, able["dense"], rows)
    dense_bytes = _header_bytes(codes, able["dense"]) + n * k * codes.bits // 8
    found = [Form(Encoding(), lambda _: dense_bytes, lambda _: target.time(dense, 0))]
    found += [_streamed(codes, variant, rows, target) for variant in able.values() if variant.decoder in stream_zeros.KIND_OF]
    taken = {form.encoding.kind for form in found}
    if rows > sparse.MOST_GATHERED_ROWS and target.activations in ("auto", "float"):
        found += [replace(form, real=True) for form in _real_forms(target, rows, n, k, (CSR,)) if form.encoding.kind not in taken]
    return found


def _streamed(codes: Codes, variant: stream.Variant, rows: int, target: Target) -> Form:
    """Weights that a streamed codelet reads without their zeros."""
    codelet, kind = stream.configuration(target.isa, codes, variant, rows), stream_zeros.KIND_OF[variant.decoder]
    encoding = CSR if kind == "csr" else BITMAP if kind == "bitmap" else Encoding("n:m", {"n": variant.kept, "m": QUAD, "axis": 1})

    def size(density: float) -> int:
        return _header_bytes(codes, variant) + stream_zeros.weight_bytes(codes, variant, density)

    return Form(encoding, size, lambda density: target.time(codelet, size(density)))


def _header_bytes(codes: Codes, variant: stream.Variant) -> int:
    return 4 * codes.scales.size * (2 if variant.zeros_kind == "channel" else 1)


def break_even(form: Form, dense: Form) -> float | None:
    """The least share of zeros, in whole per cent, that `form` can hold and from which on it is faster; None where it never is."""
    kept = form.encoding.parameters["n"] / form.encoding.parameters["m"] if form.encoding.kind == "n:m" else 1.0
    percent = 100
    while percent > round(100 * (1 - kept)) and form.microseconds(1 - (percent - 1) / 100) < dense.microseconds(1.0):
        percent -= 1
    return percent / 100 if percent < 100 else None


def sentence(zeros: float, pattern: str, times: Mapping[str, float], even: Mapping[str, float | None], names: Mapping[str, str]) -> str:
    """`unstructured 71% zeros: bitmap + expand 1.31x faster than dense (pays from 12%); compressed rows 0.80x (from 80%)`."""
    parts: list[str] = []
    for kind in sorted((kind for kind in times if kind != "dense"), key=times.__getitem__):
        ratio, least = times["dense"] / times[kind], even[kind]
        pays = "never pays for this shape" if least is None else f"pays from {least:.0%} zeros"
        parts.append(f"{names[kind]} {ratio:.2f}x as fast as dense ({pays})")
    return f"{pattern} {zeros:.0%} zeros: " + "; ".join(parts)
