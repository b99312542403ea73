"""Weight-only linear layers: x in f32, weights compressed; the weights stay so down to the codelet that streams them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qcc.dialects.codelet import Operand, Step, Stream
from qcc.dialects.encodings import encoding_of
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import ir, layer_name
from qcc.dialects.stream_codelet import PANEL_ROWS
from qcc.dialects.stream_layout import (
    DIGITS,
    MOST_SUMS,
    SUMS_DEPTH,
    StreamLayout,
    choose_fold,
    pairs_span,
    plane_depth,
    planes,
)
from qcc.passes.tile.codelets import channel_parts, elementwise, embedding, stream_zeros
from qcc.passes.tile.codelets.level_bytes import level_bytes
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.products import last_of, rows_of
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.register_tile import TASK_MACS
from qcc.passes.tile.codelets.stream_columns import pack_columns
from qcc.passes.tile.codelets.stream_packing import pack, pack_values
from qcc.passes.tile.codelets.stream_relative_columns import pack_relative
from qcc.passes.tile.codelets.stream_variant import Variant, configuration
from qcc.passes.tile.codelets.weight_codes import Codes, codes_of
from qcc.passes.values import constant_array, producer, shape_of, users

ACTIVATIONS = ("auto", "float", "int16", "int8")
MOST_TASKS = 16
QUANTIZED_BYTES = 256 * 1024  # of x in 16 bits that a call works on: they stay in the second-level cache
SAMPLE_ROWS = 16  # of weights that are looked at first
MOST_SUMS_BITS = 3  # of codes that are looked up in sums of x; 4 bits are quicker as products
LEAST_PRODUCTS = 32  # in a sum, so that their rounding adds up by its root
LOOKED_UP = 32  # channels whose sums one byte shuffle of 256 bits looks up
MOST_PADDING = 1.125  # times the channels, that are padded to whole registers of bytes


def keep(lowering: Lowering, dequantize: Any) -> bool:
    """Whether the weights behind `dequantize` stay compressed: linear layers of a real x read them, and nothing else but embeddings that
    read them as they are stored, too."""
    value = dequantize.results[0]
    if "multiplier" in dequantize.attributes or producer(dequantize.operands[0], "qcc.constant") is None:
        return False
    readers = [u for u in users(value) if u.name != "qcc.embedding" or embedding.stored_table(value) is None]
    if users(value) and not readers:
        return True
    if not readers or any(u.name != "qcc.linear" or u.operands[1] != value or u.operands[0] == value for u in readers):
        return False
    stored = constant_array(dequantize.operands[0])
    if stored is None:
        return False
    codes = codes_of(stored, ir.RankedTensorType(dequantize.operands[0].type))
    if codes is None:
        return False
    lowering.compressed[value] = codes
    return True


def linear(lowering: Lowering, op: Any) -> set[Any]:
    """Lower linear `op`, whose weights `keep` kept, and the element-wise operations behind it."""
    codes: Codes = lowering.compressed[op.operands[1]]
    result = op.results[0]
    program = Program(lowering)
    bias = lowering.constant_or_none(op.operands[2]) if len(op.operands) > 2 else None
    if len(op.operands) > 2 and bias is None:
        shape = shape_of(result)
        program.steps.append(Step("float", (program.operand(lowering.place(op.operands[2]).broadcast(shape)),), kind="add"))
    absorbed = elementwise.absorb(lowering, program, result)
    x, y = _repeated(lowering, lowering.place(op.operands[0]), codes.repeats), lowering.result(last_of(op, absorbed))
    x, sizes, strides = rows_of(lowering, x, program.operands, y)
    kind = _encoding_kind(op.operands[1])
    variant = choose(lowering.isa, lowering.activations, codes, sizes[0], kind, byte_expand=lowering.byte_expand)
    stored_bytes = call(lowering, codes, variant, x, program, y, bias, sizes[0], strides)
    lowering.fact(
        layer_name(op.location),
        stored_format=words(codes, variant),
        stored_bytes=stored_bytes,
        activations="float" if variant.compute == "f32" else f"{variant.compute}, quantized in the call",
    )
    return {op, *absorbed}


def call(
    lowering: Lowering,
    codes: Codes,
    variant: Variant,
    x: Place,
    program: Program,
    y: Place,
    bias: np.ndarray | None,
    rows: int,
    strides: Sequence[Sequence[int]],
    *,
    unit: bool = False,
) -> int:
    """Pack `codes` as `variant` and call the codelet on `rows` rows of f32 x, or for a few channels at a time; `strides` over (rows,
    channels) of x, of the program's operands and of y. Bytes of the weights. `unit`: x holds integers, which are multiplied as they are."""
    n, k = codes.codes.shape
    stored_bytes = 0
    for first, count in channel_parts.cut(lowering, n, k * (variant.bits or codes.bits) / 8):
        own, as_read = replace(codes, **_channels_of(codes, first, count)), replace(variant, **_channels_of(variant, first, count))
        behind, result = channel_parts.take(program, y, (first, count), len(y.shape) - 1)
        start = None if bias is None else bias[first : first + count]
        stored_bytes += _call(lowering, own, as_read, x, behind, result, start, rows, strides, unit)
    return stored_bytes


def _channels_of(held: Codes | Variant, first: int, count: int) -> dict[str, Any]:
    """What `held` has for every channel, of some of them; an array with one row for all stays."""
    arrays = {"codes": held.codes, "scales": held.scales, "zeros": held.zeros}
    return {name: array[first : first + count] if len(array) == len(held.codes) else array for name, array in arrays.items()}


def _call(
    lowering: Lowering, codes: Codes, variant: Variant, x: Place, program: Program, y: Place, bias: np.ndarray | None, rows: int,
    strides: Sequence[Sequence[int]], unit: bool,
) -> int:  # fmt: skip
    n, k = codes.codes.shape
    at_once = rows if variant.compute == "f32" else _rows_at_once(rows, k)
    places: list[Place] = [x, x]
    given = {"x": Operand(0, "f32", (strides[0][0], 1), x.offset), "y": Operand(0, y.element, ()), "steps": tuple(program.steps)}
    codelet = replace(configuration(lowering.isa, codes, variant, at_once), unit=unit, **given)
    width = variant.vectors * codelet.lanes
    blocks = -(-n // width)
    wanted = max(1, min(MOST_TASKS, at_once * n * k // TASK_MACS, blocks))
    values = starts = None
    if codelet.has_steps:
        packed = pack_columns if variant.decoder == "indexed" else pack_relative
        stream, values, starts = packed(codelet, variant.codes, variant.scales)
    elif variant.decoder == "bitmap":
        stream = pack(codelet, variant.codes, variant.scales, variant.zeros)
        values, starts = pack_values(codelet, codes.codes)
    else:
        stream = pack(codelet, variant.codes, variant.scales, variant.zeros)
    places[1] = lowering.weights(stream, "u8")
    extra: dict[str, Any] = {"chunk": -(-blocks // wanted)}
    stored_bytes = int(stream.nbytes)
    if values is not None and starts is not None:
        extra |= {"values": len(places), "starts": len(places) + 1}
        places += [lowering.weights(values, "u8"), lowering.weights(starts, "i64")]
        stored_bytes += int(values.nbytes + starts.nbytes)
    if variant.table is not None:
        extra["table"] = len(places)
        places.append(lowering.weights(variant.table, "u8" if variant.decoder == "shuffle" else "f32"))
    if bias is not None:
        extra["bias"] = Operand(len(places), "f32", (0, 1))
        places.append(lowering.constant_place(np.pad(bias.astype(np.float32), (0, blocks * width - n))))
    extra["operands"] = tuple(place.operand(len(places) + i, strides[1 + i]) for i, place in enumerate(program.operands))
    places += program.operands
    extra["params"] = lowering.append_params(places, program.words)
    codelet = replace(codelet, **extra, y=y.operand(len(places), strides[-1]))
    for first in range(0, rows, at_once):
        part = _rows_of(codelet, first, min(at_once, rows - first))
        lowering.call(part, [*places, y], scratch_bytes=StreamLayout(part).scratch_bytes)
    return stored_bytes


def _rows_at_once(rows: int, k: int) -> int:
    """As many of `rows` of x as a call quantizes at a time: whole tiles of rows."""
    return min(rows, max(PANEL_ROWS - 1, QUANTIZED_BYTES // (2 * k) // 8 * 8))


def _rows_of(codelet: Stream, first: int, count: int) -> Stream:
    """The same for `count` rows of x from `first` on."""

    def moved(operand: Operand) -> Operand:
        return replace(operand, offset=operand.offset + first * operand.strides[0])

    sizes = (count, *codelet.sizes[1:])
    return replace(codelet, sizes=sizes, x=moved(codelet.x), y=moved(codelet.y), operands=tuple(map(moved, codelet.operands)))


def _repeated(lowering: Lowering, x: Place, times: int) -> Place:
    """x [..., k] `times` side by side."""
    if times == 1:
        return x
    size = x.shape[-1]
    y = lowering.temporary(x.element, [*x.shape[:-1], times * size])
    for i in range(times):
        elementwise.copy(lowering, x, y.sliced([0] * (len(y.shape) - 1) + [i * size], [1] * len(y.shape), x.shape))
    return y


def _encoding_kind(value: Any) -> str:
    """The kind of encoding that select-sparse-format chose for the constant behind the dequantize that gives `value`."""
    stored = producer(value, "qcc.dequantize").operands[0]
    return encoding_of(ir.RankedTensorType(stored.type)).kind


def choose(isa: str, activations: str, c: Codes, rows: int, kind: str = "dense", *, byte_expand: bool = False) -> Variant:
    """The way to compute `c` for `rows` rows of x; without storing zeros, by encoding `kind`, where a codelet can and it takes fewer bytes.

    "auto" quantizes few rows of x to int16 wherever the codes are integers: 3 operations per 64 weights instead of 3 per 16, and f32 lanes
    do not reach the speed of memory even for 8 bits. For many rows, decoding is no longer what takes the time, and x stays as it is.
    """
    facts = ISAS[isa]
    needed = -(-c.codes.shape[0] // facts.lanes)
    wanted = {"auto": "int16", "float": "f32"}.get(activations, activations)
    if rows >= PANEL_ROWS and (c.levels is not None or activations == "auto"):
        wanted = "f32"
    if wanted != "f32" and (pairs := _pairs_variant(isa, c, wanted, rows)) is not None:
        return pairs
    exact = facts.dot4 and facts.lanes == 16  # the tiles below are made for 32 registers
    if wanted != "f32" and exact and c.levels is not None and (shuffled := _shuffle_variant(c, wanted, min(rows, 8), needed)) is not None:
        return shuffled
    compute = wanted if exact and _has_digits(c) else "f32"
    if compute == "f32":
        vectors = min(needed, 4 if rows <= 4 else 2)
        return _float_variant(isa, c, vectors)
    digits, tile = DIGITS[compute], min(rows, 8)
    vectors = _vectors_in_place(isa, c.bits, digits * tile)
    if compute == "int16" and rows == 1 and facts.byte_lanes and _sums_fit(c):
        return _variant(compute, "sums", min(needed, _sums_vectors(isa, c.bits)), c.codes, c, c.zeros.astype(np.int32))
    if kind != "dense" and (sparse := stream_zeros.variant(kind, isa, c, compute, rows, needed, byte_expand=byte_expand)) is not None:
        return sparse
    return _variant(compute, "planes", min(needed, vectors), c.codes, c, c.zeros.astype(np.int32))


def _vectors_in_place(isa: str, bits: int, sums: int) -> int:
    """As many vectors as leave codes where they lie, or as their `sums` sums each have registers for."""
    in_place = [v for v in (4, 2, 1) if choose_fold(isa, bits, sums * v)]
    return in_place[0] if in_place else next(v for v in (4, 2, 1) if sums * v <= MOST_SUMS[ISAS[isa].registers])


def _sums_vectors(isa: str, bits: int) -> int:
    """As many vectors as share tables: 8, or 4 on Zen 4, which reads so many streams faster; of 1 bit, as many bytes of tables are read."""
    return 8 if bits == 1 or ISAS[isa].asks_ahead else 4


def _pairs_variant(isa: str, c: Codes, compute: str, rows: int) -> Variant | None:
    """Codes and x in 16 bits, if the sum of a step at least is exact and groups are whole steps."""
    (n, k), tile, depth = c.codes.shape, min(rows, 8), plane_depth(c.bits)
    registers = -(-n // LOOKED_UP)
    looked_up = compute == "int16" and registers * LOOKED_UP <= MOST_PADDING * n
    if ISAS[isa].streams_pairs and looked_up and c.levels is not None and (products := _products_variant(c, min(registers, 2))) is not None:
        return products
    if not ISAS[isa].streams_pairs or c.levels is not None or (c.group % depth and c.group != k):
        return None
    if looked_up and rows == 1 and _sums_fit(c):
        vectors = min(-(-n // (LOOKED_UP // 2)), 4) if c.bits == 2 else min(registers, 2)
        return _variant(compute, "sums", vectors, c.codes, c, c.zeros.astype(np.int32))
    vectors = min(-(-n // ISAS[isa].lanes), _vectors_in_place(isa, c.bits, tile))
    ends = [level * c.step - int(zero) for level in (0, (1 << c.bits) - 1) for zero in (c.zeros.min(), c.zeros.max())]
    folds = {choose_fold(isa, c.bits, r * v) for r in range(1, tile + 1) for v in range(1, vectors + 1)}
    span = min(pairs_span(c.bits, fold, max(map(abs, ends))) for fold in folds)
    if not span:
        return None
    found = _variant(compute, "planes", vectors, c.codes, c, c.zeros.astype(np.int32))
    return replace(found, span=span if span < min(c.group, k) else 0)


def _products_variant(c: Codes, vectors: int) -> Variant | None:
    """16 levels, each times every x in 16 bits, at most a power of two times the greatest: 2^-16 of that is what rounding leaves."""
    k, zero = c.codes.shape[1], c.zeros.flat[0]
    assert c.levels is not None
    if c.bits != 4 or not (c.zeros == zero).all() or (c.group % 8 and c.group != k) or not LEAST_PRODUCTS <= min(c.group, k) < 1 << 16:
        return None
    levels = c.levels.astype(np.float64) - float(zero)
    most = float(np.abs(levels).max())
    if not np.isfinite(most) or not most:
        return None
    unit = 2.0 ** math.ceil(math.log2(most))  # so that scales which are powers of two stay that
    table = (levels / unit).astype(np.float32)
    scales = c.scales * np.float32(unit)
    return Variant("int16", "products", vectors, c.codes, scales, c.zeros.astype(np.int32), "none", 0, table)


def _shuffle_variant(c: Codes, compute: str, rows: int, needed: int) -> Variant | None:
    """Real levels as bytes of a common unit: one, where that is exact, else two, which leaves 2^-17 of their range."""
    k, depth = c.codes.shape[1], 32 // planes(c.bits)[-1]
    zero = c.zeros.flat[0]
    if c.bits not in (1, 2, 4) or not (c.zeros == zero).all() or (c.group % depth and c.group != k) or min(c.group, k) >= 1 << 15:
        return None
    assert c.levels is not None
    sample = c.codes[:: max(1, len(c.codes) // SAMPLE_ROWS)]
    shares = np.bincount(sample.reshape(-1), minlength=c.levels.size)[: c.levels.size] / sample.size
    found = level_bytes(c.levels.astype(np.float64) - float(zero), shares)
    if found is None:
        return None
    count = len(found.bytes_of)
    table = np.tile(found.bytes_of, 64 // c.levels.size)
    products = DIGITS[compute] + count - 1  # by weight, of which the least of three is left out
    scaled = replace(c, scales=c.scales * np.float32(found.unit * 256.0 ** max(0, products - 2)))
    vectors = next(v for v in (4, 2, 1) if min(2, products) * rows * v <= MOST_SUMS[32])
    kind = "constant" if found.zero else "none"
    return Variant(compute, "shuffle", min(needed, vectors), c.codes, scaled.scales, c.zeros.astype(np.int32), kind, found.zero, table)


def _has_digits(c: Codes) -> bool:
    """Whether integer sums of a group are exact in 32 bits, and groups are whole steps."""
    k = c.codes.shape[1]
    depth = 32 // planes(c.bits)[-1]
    greatest = 255 * 128 * min(c.group, k) * c.step  # of a sum of one digit, in place or shifted
    zero = int(np.abs(c.zeros).max(initial=0)) * 128 * min(c.group, k)
    return c.levels is None and (c.group % depth == 0 or c.group == k) and greatest + zero < 1 << 31


def _sums_fit(c: Codes) -> bool:
    """Whether codes are few bits, looked up quicker than multiplied, groups are whole steps and results fit 32 bits."""
    k = c.codes.shape[1]
    greatest = max(abs(level * c.step - int(zero)) for level in (0, (1 << c.bits) - 1) for zero in (c.zeros.min(), c.zeros.max()))
    return c.bits <= MOST_SUMS_BITS and (c.group % SUMS_DEPTH == 0 or c.group == k) and greatest * 16384 * min(c.group, k) < 1 << 31


def _float_variant(isa: str, c: Codes, vectors: int) -> Variant:
    wide = ISAS[isa].lanes == 16
    if c.small_float is not None and c.bits == 8 and wide:
        scale = np.float32(2.0 ** (15 - c.small_float[2]))
        return _variant("f32", "half", vectors, c.codes, replace(c, scales=c.scales * scale), c.zeros)
    if c.levels is not None:
        return _variant("f32", "table", vectors, c.codes, c, c.zeros, c.levels)
    if c.bits == 8 and c.step == 1:
        return _variant("f32", "bytes", vectors, c.codes ^ 0x80, c, c.zeros - 128)
    if wide and c.bits <= 4:  # centred levels from a register: one operation instead of mask and conversion
        centre = int(np.bincount((c.zeros - c.zeros.min()).reshape(-1)).argmax() + c.zeros.min()) if c.zeros.size else 0
        levels = (np.arange(1 << c.bits) * c.step - centre).astype(np.float32)
        return _variant("f32", "table", vectors, c.codes, c, c.zeros - centre, levels)
    return _variant("f32", "planes", vectors, c.codes, c, c.zeros)


def _variant(
    compute: str, decoder: str, vectors: int, codes: np.ndarray, c: Codes, zeros: np.ndarray, table: np.ndarray | None = None
) -> Variant:
    same = bool((zeros == zeros.flat[0]).all())
    zero = int(zeros.flat[0]) if same else 0
    kind = "channel" if not same else "constant" if zero else "none"
    if table is not None and table.size < 16:
        table = np.tile(table, 16 // table.size)
    stored = zeros.astype(np.int32 if compute != "f32" else np.float32)
    return Variant(compute, decoder, vectors, codes, c.scales, stored, kind, zero, table)


def words(c: Codes, variant: Variant) -> str:
    """The stored format for the report."""
    groups = c.scales.shape[1]
    if variant.decoder in ("indexed", "relative"):
        places = "columns" if variant.decoder == "indexed" else "distances of columns in 4 bits"
        what = f"{places} and the {float((variant.codes != 0).mean()):.0%} that are not 0 in int{variant.bits}"
    elif variant.decoder == "quads":
        what = f"{variant.kept}:4 of int{variant.bits}"
    elif variant.decoder == "bitmap":
        density = float(variant.codes.mean())
        what = f"bitmap and the {density:.0%} that are not 0 in int{variant.bits}"
    else:
        what = "ternary, two scales" if c.repeats > 1 else f"int{c.bits}" if c.levels is None else f"{c.levels.size} levels, {c.bits} bits"
    per = f"groups of {c.group}" if groups > c.repeats else "one scale per channel"
    return f"{what}, {per}"
