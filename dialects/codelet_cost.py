"""Predicted cycles and bytes of one call of a codelet on a machine: the one model that chooses tiles, picks formats and fills the report.

The arithmetic counts register tiles with their partial ones, steps of reductions and result vectors. To it comes the part of memory
traffic that arithmetic does not hide: weights on their way from the level that the whole model leaves them in, and blocks of weights that
exceed the first-level cache, once for every register tile. The constants are fitted to measured layers of the end-to-end models
(decision 0007; `python -m benchmarks.fit_cost` repeats it). It lives here, below the passes, because they choose by it and the compiler
reports it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects import codelet as codelets
from qcc.dialects import winograd_codelet
from qcc.dialects.codelet import (
    ELEMENT_BYTES,
    Contraction,
    Map,
    Operand,
    RowLanes,
    Rows,
    SparseGather,
    SparseLanes,
    Step,
)
from qcc.dialects.column_codelet import COLUMNS, Columns
from qcc.dialects.instruction_sets import ISAS, weights_in_memory
from qcc.dialects.machine import Machine, shipped
from qcc.dialects.sign_codelet import PackSigns, Signs
from qcc.dialects.window_codelet import Depthwise, DepthwiseQuads, Window, channel_blocks

LATENCY_CYCLES = {
    "dot4_u8s8": 5.0, "pairs_u8s8": 1.0, "dot2_s16": 1.0, "dot2_s16_i64": 1.0, "popcount_words": 1.0, "popcount_bytes": 1.0,
    "dot2_bf16": 6.0, "lane_f32": 4.0, "lane_i32": 5.0, "lane_i64": 5.0,
}  # fmt: skip
"""Least cycles between two multiply-adds on one accumulator."""
EMULATED_CYCLES = {"lane_i32": 1.5, "lane_i64": 3.0, "pairs_u8s8": 1.0, "dot2_s16": 0.67, "dot2_s16_i64": 1.0}
EMULATED_CYCLES_256 = EMULATED_CYCLES | {"pairs_u8s8": 0.65, "dot2_s16": 0.35}  # in vectors of 256 bits, which have more ports
"""Cycles of a vector multiply-add that is no single instruction of the machine description."""
POPCOUNT_CYCLES = {"popcount_words": {16: 1.5}, "popcount_bytes": {16: 4.0, 8: 2.7}}
"""Exclusive or, population count and addition of a vector of words, by lanes: ports of an instruction, or of two shuffles and six more."""
PORTABLE_POPCOUNT_CYCLES = 9.0  # by shifts and masks in registers of 128 bits
DEPTHS = {"dot4_u8s8": 4, "pairs_u8s8": 4, "dot2_s16": 2, "dot2_s16_i64": 2, "dot2_bf16": 2}
"""Elements of the reduction that one step of a contraction takes, where not 1."""
JOINED_LOAD = 0.3  # of a load that is part of a product's instruction, beside one of its own

ADD_SUBTRACT = {
    "amx": 0.4, "avx512_bf16": 0.4, "avx512_vbmi": 0.4, "avx512_vnni": 0.5, "avx512": 0.6, "avx_vnni": 0.3, "avx2": 0.4, "generic": 2.0,
}  # fmt: skip
SHIFT = {
    "amx": 0.1, "avx512_bf16": 0.1, "avx512_vbmi": 0.1, "avx512_vnni": 0.1, "avx512": 0.1, "avx_vnni": 0.1, "avx2": 0.1, "generic": 0.4,
}  # fmt: skip
"""Best rates of binary and ternary, and of log2 weights times bytes without a multiplier, over that of products of bytes
(`python -m benchmarks.multiplier_free`, decision 0010): no codelet works that way."""

TILE_CYCLES = 5.0  # to begin and end a register tile
REDUCTION_CYCLES = 1.0  # one step of a reduction beyond its products: the loop
LOAD_CYCLES = 0.3  # of each load of a step, although products hide most: a tile of few vectors loads x more often
LOADED_VECTOR_CYCLES = 1.0  # an operand of the step program, converted to 32 bits
STORED_VECTOR_CYCLES = 2.0  # narrowed and stored
ROW_CYCLES = 30.0  # to begin and end an innermost loop
EXPOSED_BLOCK = 0.35  # share of reading weights from the second-level cache, tile by tile, that products do not hide
EXPOSED_WEIGHTS = 0.9  # the same of weights that come from further away, once in a run, although the codelets prefetch them
HIDING_CYCLES = 0.9  # of a product: from there on products hide loads, the loop and weights on their way, for other ports stand idle

STEP_CYCLES = {  # of one vector of 16 lanes
    "requantize": 3.0, "requantize_real": 3.0, "shift": 20.0, "add_quantized": 6.0, "mul_quantized": 7.0, "lut": 3.5, "dequantize": 2.0,
    "scale": 1.5, "quantize": 6.0, "round_to": 3.0, "float": 1.0, "clamp": 2.0, "keep": 2.0, "offset": 0.5, "limit": 1.0,
    "integer": 1.0, "compare": 1.5, "select": 1.5,
}  # fmt: skip
UNARY_CYCLES = {
    "neg": 0.5,
    "abs": 0.5,
    "sqrt": 16.0,
    "rsqrt": 24.0,
    "sign": 1.0,
    "binarize": 1.0,
    "leaky_relu": 1.5,
    "hardswish": 4.0,
    "hardsigmoid": 3.0,
}
OTHER_UNARY_CYCLES = 30.0  # exp, erf, tanh and what is made of them: polynomials


@dataclass(frozen=True)
class Work:
    """What a codelet has to do: cycles of arithmetic, bytes of weights, bytes of activations read and written; `exposed` is the share of
    bringing the weights nearer that arithmetic does not hide, None where it hides all that it has time for."""

    cycles: float
    weights: int
    activations: int
    exposed: float | None = EXPOSED_WEIGHTS


@dataclass(frozen=True)
class Cost:
    """Of one call: `cycles` of arithmetic on one thread, bytes read by level, time on the threads asked for."""

    cycles: float
    weight_bytes: int
    activation_bytes: int
    microseconds: float


def product_cycles(compute: str, lanes: int, machine: Machine) -> float:
    """Cycles of one vector multiply-add of a contraction's `compute` at full rate."""
    if compute in EMULATED_CYCLES:
        return (EMULATED_CYCLES if lanes == 16 else EMULATED_CYCLES_256)[compute]
    kind, elements = ("dot4", 4 * lanes) if compute == "dot4_u8s8" else ("fma", lanes)
    rate = machine.gmacs[f"{kind}_{512 if lanes == 16 else 256}"]
    return machine.ghz * elements / rate if rate else 2.0


def hides_loads(compute: str, rate: float) -> bool:
    """Whether products of `compute` that take `rate` cycles hide everything beside them: those of one instruction that is slow."""
    return compute not in EMULATED_CYCLES and compute not in POPCOUNT_CYCLES and rate > HIDING_CYCLES


def sign_cycles(isa: str, compute: str, signs: Signs) -> float:
    """Cycles of one vector of products of bits: a mask costs an operation where there is no three-input one, two masks another count."""
    lanes = ISAS[isa].lanes
    one = PORTABLE_POPCOUNT_CYCLES if isa == "generic" else POPCOUNT_CYCLES[compute][lanes]
    masks = signs.x_planes + signs.w_planes - 2
    return one * (1 + (masks == 2)) + 0.5 * (masks if lanes < 16 else masks - 1 if masks else 0)


def tile_cycles(compute: str, pixels: int, vectors: int, steps: int, rate: float, finish: float, in_memory: int = 0) -> float:
    """Cycles of one register tile of pixels x vectors: a reduction of `steps` steps, then `finish` cycles per result vector.

    `in_memory` of the vectors of weights are operands of the products (see `weights_in_memory`).
    """
    loads = pixels + vectors + in_memory * (JOINED_LOAD * pixels - 1)
    products = max(pixels * vectors * rate, loads / 2, LATENCY_CYCLES.get(compute, 5.0))
    beside = 0.0 if hides_loads(compute, rate) else LOAD_CYCLES * loads + REDUCTION_CYCLES
    reduction = steps * (products + beside)
    return reduction + finish * pixels * vectors + TILE_CYCLES


def parts(size: int, tile: int) -> list[tuple[int, int]]:
    """(tile size, how many) for the whole tiles and for the rest."""
    return [(t, n) for t, n in ((tile, size // tile), (size % tile, 1)) if t and n]


def steps_cycles(steps: Sequence[Step]) -> float:
    """Cycles of a step program on one vector."""
    cycles = 0.0
    for step in steps:
        cycles += UNARY_CYCLES.get(step.kind, OTHER_UNARY_CYCLES) if step.op == "unary" else STEP_CYCLES.get(step.op, 2.0)
        cycles += LOADED_VECTOR_CYCLES * sum(argument < 0 for argument in step.args)
    return cycles


def cost(
    codelet: Any, machine: Machine, *, threads: int = 1, weights_bytes: int = 0, arena_bytes: int = 0, stored_bytes: int = 0
) -> Cost | None:
    """The predicted cost of a call, None for a kind that is not modelled. `weights_bytes` and `arena_bytes` are the whole model's: what
    does not fit in a cache with the rest of the model comes from further away in every run. `stored_bytes` are those of the call's own
    weight buffers, which the codelets that store no zeros do not know; 0: as if there were none."""
    if codelet is None or (model := _MODELS.get(codelet.kind)) is None:
        return None
    work: Work = model(codelet, machine, stored_bytes) if codelet.kind in _DATA_DEPENDENT else model(codelet, machine)
    count = codelets.tasks(codelet)
    share = math.ceil(count / threads) / count if count else 1.0  # of the busiest thread
    weights, activations = _memory_cycles(machine, work, weights_bytes, arena_bytes, threads)
    busy = max(work.cycles, weights) if work.exposed is None else work.cycles + work.exposed * weights
    cycles = max(busy, activations) * share + machine.step_ns[threads > 1] * machine.ghz
    return Cost(work.cycles, work.weights, work.activations, cycles / machine.ghz / 1000)


def _memory_cycles(machine: Machine, work: Work, weights_bytes: int, arena_bytes: int, threads: int) -> tuple[float, float]:
    """Cycles until weights, and until activations, have come once from where the rest of the model left them."""
    from_weights = machine.level_of(max(weights_bytes, work.weights))
    from_arena = machine.level_of(max(min(arena_bytes, 2 * work.activations), work.activations))
    return (
        work.weights / machine.read_bytes_per_cycle(from_weights, threads),
        work.activations / machine.read_bytes_per_cycle(from_arena, threads),
    )


def _extra_bytes(operands: Sequence[Operand], elements: int) -> int:
    """Bytes of the step program's operands that are as large as the result."""
    return sum(elements * ELEMENT_BYTES[o.element] for o in operands if sum(s != 0 for s in o.strides) > 1)


def _contraction(c: Contraction, machine: Machine) -> Work:
    lanes = ISAS[c.isa].lanes
    n, g, height, width, channels = c.sizes
    depth = DEPTHS.get(c.compute, 1)
    w_bytes = depth * ELEMENT_BYTES[c.w.element] * (c.signs.w_planes if c.signs else 1)  # of a lane
    steps = c.taps[0] * c.taps[1] * -(-c.run // depth)
    vectors = -(-channels // lanes)
    rate = sign_cycles(c.isa, c.compute, c.signs) if c.signs else product_cycles(c.compute, lanes, machine)
    finish = steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    hidden = hides_loads(c.compute, rate)
    cycles = 0.0
    for rows, down in parts(height, c.tile[0]):
        for columns, across in parts(width, c.tile[1]):
            for deep, count in parts(vectors, c.tile[2]):
                pixels = rows * columns
                block = steps * deep * lanes * w_bytes
                nearest = "l1" if block <= machine.cache_bytes["l1"] * 0.6 else machine.level_of(block)
                streamed = block / machine.read_bytes_per_cycle(nearest)
                in_memory = weights_in_memory(c.isa, c.compute, c.w.element, pixels, deep)
                one = tile_cycles(c.compute, pixels, deep, steps, rate, finish, in_memory)
                cycles += down * across * count * (one + EXPOSED_BLOCK * streamed * (nearest != "l1" and not hidden))
    elements = n * g * height * width * channels
    weights = (n if c.w.strides[0] else 1) * g * steps * vectors * lanes * w_bytes
    taps_rows = (height - 1) * c.x.strides[2] + (c.taps[0] - 1) * c.tap_strides[0] + 1
    x = n * max(abs(taps_rows), c.run * height * width if c.x.strides[3] == c.run else 1) * ELEMENT_BYTES[c.x.element]
    activations = x + elements * ELEMENT_BYTES[c.y.element] + _extra_bytes(c.operands, elements)
    hidden = hidden or (c.compute == "lane_f32" and n * height * width == 1)  # products of a single row hide behind reading their weights
    return Work(n * g * cycles, weights, activations, exposed=None if hidden else EXPOSED_WEIGHTS)


def _depthwise(c: Depthwise, machine: Machine) -> Work:
    n, height, width, channels = c.sizes
    vectors = -(-channels // 16)
    taps = c.taps[0] * c.taps[1]
    multiply = {"lane_i64": 4.0, "lane_f32": 1.0, "dot2_s16": 0.9}.get(c.compute, 1.5)  # the load widens, then one multiply-add
    one = taps * multiply + steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    cycles = n * height * vectors * (width * one + ROW_CYCLES * math.ceil(width / c.columns) / 4)
    elements = n * height * width * channels
    x = elements * ELEMENT_BYTES[c.x.element] * max(1, round(c.x.strides[2] / max(channels, 1))) ** 2
    return Work(cycles, taps * vectors * 16 * ELEMENT_BYTES[c.w.element], x + elements * ELEMENT_BYTES[c.y.element])


def _depthwise_quads(c: DepthwiseQuads, machine: Machine) -> Work:
    n, height, width, channels = c.sizes
    quads, groups = c.taps[0] * len(c.quads()), math.ceil(width / c.pixels)
    finish = steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    interleave = 6.0  # of one quadruple of 64 bytes each: bytes, then words
    cycles, blocks = 0.0, channel_blocks(channels)
    for _, vectors in blocks:
        whole = math.ceil(groups * vectors / 4)
        cycles += whole * (quads * (interleave + 4 * c.pixels * product_cycles("dot4_u8s8", 16, machine)) + 4 * c.pixels * finish)
    elements = n * height * width * channels
    x = elements * max(1, round(c.x.strides[2] / max(channels, 1))) ** 2
    weights = len(blocks) * quads * c.pixels * 256
    return Work(n * height * cycles, weights, x + elements * ELEMENT_BYTES[c.y.element] + _extra_bytes(c.operands, elements))


def _window(c: Window, machine: Machine) -> Work:
    n, height, width, channels = c.sizes
    vectors = math.ceil(channels / (64 if c.op == "max" and c.x.element == "u8" else 16))
    taps = math.prod(c.kernel)
    one = taps * (2.5 if c.op == "max" else 3.0) + steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    elements = n * height * width * channels
    x = n * math.prod(c.image) * channels * ELEMENT_BYTES[c.x.element]
    return Work(n * height * width * (vectors * one + ROW_CYCLES), 0, x + elements * ELEMENT_BYTES[c.y.element])


def _rows(c: Rows, machine: Machine) -> Work:
    rows, length = math.prod(c.sizes[:-1]), c.sizes[-1]
    vectors = math.ceil(length / 16)
    passes = {"softmax": 40.0, "normalize": 6.0, "rms_normalize": 3.0}.get(c.op, 1.5)
    elements = rows * length
    one = vectors * (passes + steps_cycles(c.steps) + STORED_VECTOR_CYCLES) + ROW_CYCLES
    written = elements if c.op in ("softmax", "normalize", "rms_normalize") else rows
    return Work(rows * one, 0, elements * ELEMENT_BYTES[c.x.element] + written * ELEMENT_BYTES[c.y.element])


def _map(c: Map, machine: Machine) -> Work:
    elements, length = math.prod(c.sizes), c.sizes[-1]
    loaded = c.operands[0].strides[-1]
    scattered = 16.0 * sum(stride not in (0, 1) for stride in (loaded, c.y.strides[-1]))  # element by element
    copies = not c.steps and c.operands[0].element == c.y.element
    lanes = 64 // ELEMENT_BYTES[c.y.element] if copies else 16
    one = (1.0 if copies else LOADED_VECTOR_CYCLES + STORED_VECTOR_CYCLES) + steps_cycles(c.steps) + scattered * lanes / 16
    cycles = elements / length * (math.ceil(length / lanes) * one + (ROW_CYCLES / 8 if length < 256 else ROW_CYCLES))
    moved = elements * (ELEMENT_BYTES[c.operands[0].element] + ELEMENT_BYTES[c.y.element]) + _extra_bytes(c.operands[1:], elements)
    return Work(cycles, 0, moved)


def _pack(c: codelets.Pack, machine: Machine) -> Work:
    elements = math.prod(c.sizes)
    return Work(elements / 4, 0, 2 * elements)


def _pack_signs(c: PackSigns, machine: Machine) -> Work:
    n, height, width, channels = c.sizes
    cycles = n * height * width * (5.0 + c.planes * 3.0 * math.ceil(channels / 64))
    return Work(cycles, 0, n * height * width * (channels + 4 * c.words * c.planes))


def _embedding(c: codelets.Embedding, machine: Machine) -> Work:
    elements = math.prod(c.sizes)
    return Work(elements / 8, 0, elements * (ELEMENT_BYTES[c.table.element] + ELEMENT_BYTES[c.y.element]))


def _attend(c: codelets.Attend, machine: Machine) -> Work:
    """Two products with a multiply-add a cycle, because operands come from memory, and an exponential for every score."""
    heads, (t, s, d, e) = c.sizes[0] * c.sizes[1], c.sizes[2:]
    lanes = ISAS[c.isa].lanes
    return Work(heads * t * s * (d + e + 30) / lanes, 0, 4 * heads * (s * (d + e) + t * (d + e)))


def _insert(c: codelets.Insert, machine: Machine) -> Work:
    elements = math.prod(c.sizes)
    return Work(8 * c.sizes[0] * c.sizes[1] + elements / 8, 0, 2 * elements * ELEMENT_BYTES[c.y.element])


def _tile_contraction(c: Any, machine: Machine) -> Work:
    """On a matrix unit: a product takes its time per row of x (at least 8 rows), a load half a cycle per row, and they overlap; then
    accumulators are stored and every vector goes through the steps."""
    n, g, _, _, channels = c.sizes
    kind, macs = ("amx_bf16", 16 * 32) if c.compute == "tile_bf16" else ("amx_int8", 16 * 64)
    per_row = machine.ghz * macs / machine.gmacs[kind] if machine.gmacs[kind] else 1.0
    reduction = c.taps[0] * c.taps[1] * math.ceil(c.run / c.depth)
    finish = 1.2 + steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    rows, units = c.units
    pixels, cycles = c.tile[0], 0.0
    for blocks, count in parts(math.ceil(channels / 16), c.tile[1]):
        products, loads = pixels * blocks * max(c.rows, 8) * per_row, (pixels * c.rows + blocks * 16) / 2
        cycles += count * (reduction * max(products, loads) + finish * pixels * blocks * c.rows + 60)
    elements = math.prod(c.sizes)
    weights = (n if c.w.strides[0] else 1) * g * c.taps[0] * c.taps[1] * c.run * -(-channels // 16) * 16 * ELEMENT_BYTES[c.w.element]
    x = n * rows * units * pixels * c.rows * c.run * ELEMENT_BYTES[c.x.element]
    return Work(n * g * rows * units * cycles, weights, x + elements * ELEMENT_BYTES[c.y.element] + _extra_bytes(c.operands, elements))


def _stream(c: Any, machine: Machine, stored_bytes: int) -> Work:
    """Weight-only products: made to read their weights as fast as memory gives them."""
    rows, channels, k = c.sizes
    vectors = -(-channels // 16)
    headers = math.ceil(k / c.group) * vectors * 64 * (2 if c.zeros == "channel" else 1)
    each = {"f32": 1.0, "int16": 0.6, "int8": 0.35}.get(c.compute, 1.0)  # decoding and multiplying one vector of one k
    if c.compute == "int16":
        each = LOOKED_UP_CYCLES.get((c.decoder, c.bits), each)
    if c.decoder == "bitmap_f32":
        each = EXPANDED_CYCLES
    decodings = 1 if c.has_panel else math.ceil(rows / 8)
    expanding, tables = decodings * EXPAND_CYCLES.get((c.decoder, c.bits), 0.0), 0.0
    if ISAS[c.isa].lanes < 16:
        decoding, each = NARROW_CYCLES["f32" if c.compute == "f32" and c.decoder != "table" else c.decoder]
        expanding = decodings * decoding * (c.bits if c.decoder == "sums" else 1)
        tables = TABLE_CYCLES.get(c.decoder, 0.0) * k
    if c.has_panel:
        lanes = ISAS[c.isa].lanes
        each = PANEL_PRODUCTS * product_cycles("lane_f32", lanes, machine) * 16 / lanes
    decoded = vectors * k
    if c.decoder == "indexed" and stored_bytes:  # what is there, each with the byte of its column
        decoded, each, expanding = 8 * (stored_bytes - headers) / (c.bits + 8) / 16, INDEXED_CYCLES[0], decodings * INDEXED_CYCLES[1]
    cycles = decoded * (each * rows + expanding) + rows * (vectors * (steps_cycles(c.steps) + STORED_VECTOR_CYCLES) + tables)
    weights = vectors * 16 * k * c.bits // 8 + headers
    if c.decoder in ("bitmap", "bitmap_f32", "indexed", "quads"):
        weights = stored_bytes or weights + vectors * 2 * k
    if c.decoder == "bitmap_f32":
        weights = int(EXPANDED_READ * weights)
    return Work(cycles, weights, rows * (channels + k) * 4, exposed=None)


def _sparse_gather(c: SparseGather, machine: Machine, stored_bytes: int) -> Work:
    rows, channels, k = c.sizes
    lanes = ISAS[c.isa].lanes
    stored = stored_bytes or channels * math.ceil(k / lanes) * c.step_bytes
    finish = math.ceil(channels / lanes) * rows * (steps_cycles(c.steps) + STORED_VECTOR_CYCLES)
    cycles = stored / c.step_bytes * rows * GATHER_CYCLES[c.isa if c.isa == "generic" else lanes] + channels * CHANNEL_CYCLES + finish
    return Work(cycles, stored, rows * (channels + k) * 4, exposed=None)


def _sparse_lanes(c: SparseLanes, machine: Machine, stored_bytes: int) -> Work:
    rows, channels, k = c.sizes
    lanes = ISAS[c.isa].lanes
    heads = c.heads_bytes
    stored = stored_bytes or heads + channels * k * 6
    vectors = math.ceil(rows / lanes)  # of rows, all blocks together
    blocks = math.ceil(vectors / c.vectors)
    cycles = (stored - heads) / 6 * (blocks * BROADCAST_CYCLES + vectors * BROADCAST_VECTOR_CYCLES)
    cycles += channels * c.k_blocks * (blocks * HEAD_CYCLES + vectors * KEPT_SUM_CYCLES)
    cycles += vectors * channels * (TURN_CYCLES + steps_cycles(c.steps) + STORED_VECTOR_CYCLES)
    return Work(cycles, blocks * stored, rows * (channels + k) * 4, exposed=None)


def _row_lanes(c: RowLanes, machine: Machine) -> Work:
    lanes = ISAS[c.isa].lanes
    vectors = math.ceil(c.sizes[0] / lanes) * c.padded_k
    return Work(vectors * TURN_CYCLES, 0, 2 * vectors * lanes * 4)


EXPAND_CYCLES = {("bitmap_f32", 32): 3.2, ("bitmap", 8): 0.4, ("bitmap", 4): 0.3}
"""Of one vector of one k, by decoder and bits: expanding what is stored, once for up to 8 rows."""
LOOKED_UP_CYCLES = {("sums", 1): 0.18, ("sums", 2): 0.36, ("sums", 3): 0.54, ("shuffle", 4): 0.9}
"""Of one vector of one k, decoding and multiplying by x of 16 bits, where that is not the same for all codes."""
INDEXED_CYCLES = (1.15, 1.5)
"""Of 16 values that have their columns: multiplying them by a row of x, and finding their places (2048 x 2048 of 10 %, Zen 4)."""
PANEL_PRODUCTS = 1.17  # times a fused multiply-add at full rate: weights and x come from memory
EXPANDED_CYCLES = 0.65  # of multiplying it, where it is f32
EXPANDED_READ = 1.15  # of the time of a stream, because values come in pieces of any length: 4096 x 4096 of 20 to 50 % zeros, Zen 4
NARROW_CYCLES = {"f32": (1.8, 0.7), "table": (19.0, 0.7), "planes": (0.65, 0.6), "sums": (0.38, 0.0), "products": (0.0, 1.75)}
"""In registers of 8 lanes: decoding 16 weights ("sums": a bit of each), then multiplying by a row of x; float tables are gathered."""
TABLE_CYCLES = {"sums": 6.5, "products": 14.0}  # of making the tables of an x
GATHER_CYCLES: dict[int | str, float] = {16: 13.5, 8: 16.0, "generic": 20.0}
"""Of a vector of weights and what is gathered for it, by lanes."""
CHANNEL_CYCLES = 6.0  # to begin and end a channel whose weights are gathered for
BROADCAST_CYCLES, BROADCAST_VECTOR_CYCLES = 0.85, 0.87  # a weight, and each vector of rows that it meets
HEAD_CYCLES, KEPT_SUM_CYCLES = 8.0, 2.2  # of a channel in a block of k, and each vector of its sums, which come from the second-level cache
TURN_CYCLES = 9.0  # of a vector in a square that is turned around, with load and store


COLUMN_CYCLES = {"dot4_u8s8": 12.0, "dot2_s16": 3.0}  # of interleaving and multiplying a unit of one group of columns
LISTED_CYCLES = 3.0  # of looking at one element of x
SCATTERED = 0.4  # times the square of the zeros: what reading is slower by, because prefetchers follow runs that end


def _columns(c: Columns, machine: Machine) -> Work:
    """Only the columns that something multiplies are read; the list of them is made by every thread."""
    channels, k = c.sizes
    group, lanes = COLUMNS[c.compute], ISAS[c.isa].lanes
    units, groups = math.ceil(channels / (group * lanes)), math.ceil(k * c.density / group)
    blocks = math.ceil(channels / c.width)
    cycles = groups * (units * COLUMN_CYCLES[c.compute] + 10.0 * blocks) + k * LISTED_CYCLES
    finish = units * group * (steps_cycles(c.steps) + STORED_VECTOR_CYCLES)
    exposed = EXPOSED_WEIGHTS * (1 + SCATTERED * (1 - c.density) ** 2)
    return Work(cycles + finish, int(blocks * c.width * k * c.density), k + channels * ELEMENT_BYTES[c.y.element], exposed)


INPUT_CYCLES, SUM_CYCLES = 150, 130  # of transforming a tile of x per vector, and of sums per vector with what is behind them
POINT_WEIGHT_CYCLES = 1.1  # of a vector of weights that a strip of tiles brings to the first-level cache

WINOGRAD_MEASURED = {"lane_f32": 1.5, "dot2_s16": 1.5}
"""Measured time over that arithmetic: the scratch passes through the caches between its three steps."""
WINOGRAD_MEASURED_256 = WINOGRAD_MEASURED | {"dot2_s16": 0.75}  # of 8 lanes, which have more ports than the rates below say


def winograd_rates(isa: str, compute: str) -> tuple[float, float]:
    """Multiply-accumulates per cycle of the direct 3x3 loop and of Winograd's products."""
    facts, machine = ISAS[isa], shipped(isa)
    if compute == "lane_f32":
        rate = facts.lanes / product_cycles("lane_f32", facts.lanes, machine)
        return rate, rate
    if facts.dot4:
        rate = 4 * facts.lanes / product_cycles("dot4_u8s8", facts.lanes, machine)
        return rate, rate / 2
    return (32, 32) if facts.lanes == 16 else (32, 24)  # vpmaddwd and an addition, on two ports of 512 bits or three of 256


def winograd_hides(isa: str, compute: str) -> bool:
    """Whether its products hide what comes through the caches."""
    kind, lanes = "dot4_u8s8" if compute == "dot2_s16" and ISAS[isa].dot4 else compute, ISAS[isa].lanes
    return hides_loads(kind, product_cycles(kind, lanes, shipped(isa)))


def winograd_measured(isa: str, compute: str) -> float:
    """Measured time over `winograd_cycles`."""
    if winograd_hides(isa, compute):
        return 1.0
    return (WINOGRAD_MEASURED if ISAS[isa].lanes == 16 else WINOGRAD_MEASURED_256)[compute]


def winograd_cycles(isa: str, compute: str, tiles: int, products: int, channels: int, out: int, strip: int) -> float:
    """Arithmetic of `tiles` tiles of results, `strip` of them at a time: `products` of all points for one channel of x and one result
    channel, transforms of x and of the sums."""
    facts, size = ISAS[isa], 2 if compute == "dot2_s16" else 4
    multiplied = 1.1 * products * channels * out / winograd_rates(isa, compute)[1]
    weights = tiles / strip * winograd_codelet.POINTS * channels * out * size / (4 * facts.lanes) * POINT_WEIGHT_CYCLES
    again = 2 if tiles == strip else 1  # two tasks share the blocks, and both transform x
    whole = products / winograd_codelet.POINTS  # tiles
    transforms = whole * (again * channels * size / 64 * INPUT_CYCLES + out / 16 * SUM_CYCLES) * 16 / facts.lanes
    return multiplied + weights + transforms


def _winograd(c: winograd_codelet.Winograd, machine: Machine) -> Work:
    n, height, width, out = c.sizes
    elements = math.prod(c.sizes)
    weights = winograd_codelet.POINTS * c.channels * out * ELEMENT_BYTES[c.w.element]
    x = n * height * width * c.channels * ELEMENT_BYTES[c.x.element]
    products = n * winograd_codelet.products(height, width, c.narrow)
    cycles = winograd_measured(c.isa, c.compute) * winograd_cycles(c.isa, c.compute, c.tiles, products, c.channels, out, c.strip)
    exposed = None if winograd_hides(c.isa, c.compute) else EXPOSED_WEIGHTS
    return Work(cycles, weights, x + elements * ELEMENT_BYTES[c.y.element] + _extra_bytes(c.operands, elements), exposed)


_MODELS: dict[str, Any] = {  # by kind of codelet
    "winograd": _winograd,
    "contraction": _contraction,
    "tile_contraction": _tile_contraction,
    "stream": _stream,
    "columns": _columns,
    "sparse_gather": _sparse_gather,
    "sparse_lanes": _sparse_lanes,
    "row_lanes": _row_lanes,
    "depthwise": _depthwise,
    "depthwise_quads": _depthwise_quads,
    "window": _window,
    "rows": _rows,
    "map": _map,
    "pack": _pack,
    "pack_pairs": _pack,
    "pack_signs": _pack_signs,
    "embedding": _embedding,
    "insert": _insert,
    "attend": _attend,
}
_DATA_DEPENDENT = ("stream", "sparse_gather", "sparse_lanes")  # kinds whose bytes depend on how many weights are zero
