"""Linear layers of quantized x whose weights stay as few bits as they are, or without zeros, in the memory: a streamed codelet decodes them
where that is predicted to pay.

Such a layer of few rows takes the time of reading its weights, and a contraction reads bytes; of more rows it multiplies zeros. The codelet
of weight-only layers multiplies x as signed bytes and adds up in 32 bits; here x is not rounded for it but is those bytes, with a scale of
1, so that its sums are the accumulators. It gives them as f32, which is exact below 2^24 and what rescaling converts them to anyway.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qcc.dialects import codelet_cost
from qcc.dialects.codelet import Step
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.mlir import ir, layer_name, op_attribute
from qcc.dialects.stream_layout import QUAD
from qcc.passes.tile.codelets import columns, elementwise, sign_products, sparse_pixels, stream, stream_zeros
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.products import integers, last_of, row_space, rows_of
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.weight_codes import Codes, codes_of
from qcc.passes.values import affine_of, shape_of

STEP_MICROSECONDS = 0.5  # of x becoming f32
GAIN = 0.9  # worth it below this part of the time of reading bytes
MOST_ROWS = 64  # of x: beyond, weights would be real values in compressed rows, or are few
MOST_ROWS_BESIDE_TILES = 2  # where a matrix unit multiplies bytes for more
EXACT = 1 << 24  # magnitudes below are integers in f32
MIDDLE = 128  # of the bytes of x
FIRST_STEPS = ("requantize", "requantize_real", "scale")  # take f32 for an accumulator


def linear(lowering: Lowering, op: Any) -> set[Any] | None:
    """Lower linear `op` and the element-wise operations behind it; None where a contraction is as quick, or sums are not exact."""
    found = _weights(lowering, op)
    if found is None:
        return None
    codes, start, values = found
    rows = math.prod(shape_of(op.operands[0])[:-1])
    variant, ratio = _fastest(lowering, op, codes, rows)
    if lowering.coded and variant is not None and variant.decoder in stream_zeros.KIND_OF:
        reason = f"{_without(codes, variant, ratio)}; kept dense, because coded zeros take fewer bits than places"
        lowering.fact(layer_name(op.location), storage="dense", storage_reason=reason)
        variant, ratio = _fastest(lowering, op, codes, rows, ())
    if variant is None:
        return None
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    x, y = lowering.place(op.operands[0], narrow=True), lowering.result(last_of(op, absorbed))
    if not program.steps or program.steps[0].op not in FIRST_STEPS or x.element != "u8":
        return None
    if row_space(lowering, [y, *program.operands], 1)[1] is None:
        return None
    x, sizes, strides = rows_of(lowering, _middled(lowering, x), program.operands, y)
    stored_bytes = stream.call(lowering, codes, variant, x, program, y, start, sizes[0], strides, unit=True)
    facts: dict[str, Any] = {"stored_format": stream.words(codes, variant), "stored_bytes": stored_bytes}
    if variant.decoder in stream_zeros.KIND_OF:
        facts |= {"storage": stream_zeros.KIND_OF[variant.decoder], "storage_reason": _without(codes, variant, ratio)}
    else:
        facts["streaming"] = f"read as they are stored: {ratio:.2f}x as fast as bytes"
    lowering.fact(layer_name(op.location), **facts)
    sign_products.report_multiplier(lowering, op, values)
    return {op, *absorbed}


def _weights(lowering: Lowering, op: Any) -> tuple[Codes, np.ndarray, np.ndarray] | None:
    """Codes with scales of 1, what sums of bytes less `MIDDLE` start at (f32), and the integers (i64), where all of it is exact."""
    x, w, facts = affine_of(op.operands[0]), op.operands[1], ISAS[lowering.isa]
    stored, result = lowering.constant_or_none(w), ir.RankedTensorType(op.results[0].type).element_type
    if x is None or x.axis is not None or x.block is not None or x.bits > 8 or stored is None or not (facts.dot4 or facts.dot2):
        return None
    most = MOST_ROWS_BESIDE_TILES if facts.tiles else MOST_ROWS
    if not isinstance(result, ir.IntegerType) or math.prod(shape_of(op.operands[0])[:-1]) > most:
        return None
    bias = lowering.constant_or_none(op.operands[2]) if len(op.operands) > 2 else np.zeros(1, np.int64)
    codes = codes_of(stored, ir.RankedTensorType(w.type))
    if bias is None or codes is None or codes.levels is not None or codes.scales.shape[1] > 1:
        return None
    values = integers(lowering, op, w).astype(np.int64)
    if sign_products.are_signs(x, values):
        return None  # population counts read a bit of each
    middle = MIDDLE - int(x.zero_points[0]) - stored_offset(op.operands[0].type)
    start = bias.astype(np.int64) + middle * values.sum(axis=1)
    if int((np.abs(start) + MIDDLE * np.abs(values).sum(axis=1)).max()) >= EXACT:
        return None
    return replace(codes, scales=np.ones_like(codes.scales)), start.astype(np.float32), values


def _without(codes: Codes, variant: stream.Variant, ratio: float) -> str:
    """What leaving zeros out gains, in words."""
    zeros = float((codes.codes == codes.zeros).mean())
    words = f"{variant.kept}:{QUAD}" if variant.kept else stream_zeros.WORDS[stream_zeros.KIND_OF[variant.decoder]]
    return f"{zeros:.0%} zeros: {words} {ratio:.2f}x as fast as dense bytes"


def _fastest(
    lowering: Lowering, op: Any, codes: Codes, rows: int, kinds: Sequence[str] = stream_zeros.KINDS
) -> tuple[stream.Variant | None, float]:
    """The variant that is predicted to be fastest, and how many times as fast as bytes; None where that is not worth it. `kinds`: of
    encodings to try beside the dense one."""
    n, k = codes.codes.shape
    machine, best, least = shipped(lowering.isa), None, math.inf
    for variant in _variants(lowering, codes, rows, kinds):
        stored_bytes = _bytes(codes, variant)
        if (stored_bytes or n * k * codes.bits / 8) > GAIN * n * k:
            continue
        codelet = stream.configuration(lowering.isa, codes, variant, rows)
        cost = codelet_cost.cost(codelet, machine, stored_bytes=stored_bytes)
        if cost is not None and cost.microseconds + STEP_MICROSECONDS < least:
            best, least = variant, cost.microseconds + STEP_MICROSECONDS
    theirs = columns.reading_all(lowering.isa, rows, n, k)
    read = 1 - (op_attribute(op, "qcc.zeros") or 0) if rows == 1 else 1  # by columns
    without_zeros = sparse_pixels.rows_microseconds(lowering, rows, codes.codes != codes.zeros)
    return (best if least < min(GAIN * read * theirs, without_zeros) else None), theirs / least


def _variants(lowering: Lowering, codes: Codes, rows: int, kinds: Sequence[str]) -> Iterator[stream.Variant]:
    """The ways to compute with x as bytes, or as 16 bits where that is what few bits are looked up by."""
    for activations, kind in itertools.product(("int8", "int16"), ("dense", *kinds)):
        variant = stream.choose(lowering.isa, activations, codes, rows, kind, byte_expand=lowering.byte_expand)
        if variant.compute != "f32" and (variant.decoder in stream_zeros.KIND_OF) == (kind != "dense"):
            yield variant


def _bytes(codes: Codes, variant: stream.Variant) -> int:
    """What is read of weights without zeros; 0 of others, whose size the codelet knows."""
    if variant.decoder not in stream_zeros.KIND_OF:
        return 0
    density = float((codes.codes != codes.zeros).mean())
    return stream_zeros.weight_bytes(codes, variant, density)


def _middled(lowering: Lowering, x: Place) -> Place:
    """The bytes of x less `MIDDLE`, in f32."""
    y, program = lowering.temporary("f32", x.shape), Program(lowering)
    program.steps.append(Step("dequantize", (program.integer(MIDDLE), program.real(1.0))))
    elementwise.run(lowering, program, x, y)
    return y
