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
from qcc.dialects import compressed_cost, winograd_codelet
from qcc.dialects.codelet import ELEMENT_BYTES, Contraction, Map, Operand, Rows, Step
from qcc.dialects.codelet_work import (
    EMULATED_CYCLES,
    EXPOSED_WEIGHTS,
    LOADED_VECTOR_CYCLES,
    PACKED_VECTOR_CYCLES,
    STORED_VECTOR_CYCLES,
    Work,
    multiplier_cycles,
    product_cycles,
    steps_cycles,
)
from qcc.dialects.instruction_sets import ISAS, weights_in_memory
from qcc.dialects.machine import Machine, shipped
from qcc.dialects.sign_codelet import PackSigns, Signs
from qcc.dialects.window_codelet import Depthwise, DepthwiseQuads, Window, channel_blocks

LATENCY_CYCLES = {
    "dot4_u8s8": 5.0, "pairs_u8s8": 1.0, "dot2_s16": 1.0, "dot2_s16_i64": 1.0, "popcount_words": 1.0, "popcount_bytes": 1.0,
    "dot2_bf16": 6.0, "lane_f32": 4.0, "lane_i32": 5.0, "lane_i64": 5.0,
}  # fmt: skip
"""Least cycles between two multiply-adds on one accumulator."""
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
ROW_CYCLES = 30.0  # to begin and end an innermost loop
PIXEL_CYCLES = 4.0  # to find the window of a pixel
WINDOW_CYCLES = {("max", True): (2.2, 0.5), ("max", False): (1.1, 0.5), ("mean", True): (1.0, 1.0), ("mean_quantized", False): (1.15, 2.5)}
"""Of pooling, by operation and whether of floats: cycles of a tap, and to finish, of 16 channels; Zen 4."""
LOOKED_UP_CYCLES = 6.0  # of 64 bytes in a table of 256
INTERLEAVE_CYCLES = (9.0, 14.0)  # of four pixels of 64 bytes to quadruples: 8 shuffles; where products take a whole cycle, beside them
EXPOSED_BLOCK = 0.35  # share of reading weights from the second-level cache, tile by tile, that products do not hide
MOST_OVERLAPPED = 16  # accumulators of a tile whose epilogue runs beside the products of the next, where a product takes a whole cycle
HIDING_CYCLES = 0.9  # of a product: from there on products hide loads, the loop and weights on their way, for other ports stand idle


@dataclass(frozen=True)
class Cost:
    """Of one call: `cycles` of arithmetic on one thread, bytes read by level, time on the threads asked for."""

    cycles: float
    weight_bytes: int
    activation_bytes: int
    microseconds: float


def hides_loads(compute: str, rate: float) -> bool:
    """Whether products of `compute` that take `rate` cycles hide everything beside them: those of one instruction that is slow."""
    return compute not in EMULATED_CYCLES and compute not in POPCOUNT_CYCLES and rate > HIDING_CYCLES


def takes_whole_cycle(machine: Machine) -> bool:
    """Whether a product of bytes of 512 bits does: the core has two pipes of 256 bits for them and two more for what is no product."""
    return machine.gmacs["dot4_512"] > 0 and hides_loads("dot4_u8s8", product_cycles("dot4_u8s8", 16, machine))


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


def finish_cycles(steps: Sequence[Step], *, overlapped: bool) -> float:
    """Cycles of a result vector behind its products: its steps, and storing it as bytes. `overlapped`: what products leave of them."""
    return multiplier_cycles(steps) + PACKED_VECTOR_CYCLES if overlapped else steps_cycles(steps) + STORED_VECTOR_CYCLES


def parts(size: int, tile: int) -> list[tuple[int, int]]:
    """(tile size, how many) for the whole tiles and for the rest."""
    return [(t, n) for t, n in ((tile, size // tile), (size % tile, 1)) if t and n]


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
    hidden = hides_loads(c.compute, rate)
    finish = finish_cycles(c.steps, overlapped=hidden and math.prod(c.tile) <= MOST_OVERLAPPED)
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
    product, shares = product_cycles("dot4_u8s8", 16, machine), takes_whole_cycle(machine)
    interleave, finish = INTERLEAVE_CYCLES[shares], finish_cycles(c.steps, overlapped=shares)
    quads, cycles, blocks = len(c.quads()), 0.0, channel_blocks(channels)
    for _, vectors in blocks:
        kernels = math.ceil(width / (c.pixels * 4 // vectors))
        for rows, down in parts(height, c.rows):
            reached = (rows - 1) * (c.x.strides[1] // c.tap_strides[0]) + c.taps[0]  # rows of x
            multiplied = rows * c.pixels * 4 * (c.taps[0] * quads * product + finish)
            cycles += kernels * down * (reached * quads * interleave + multiplied)
    elements = n * height * width * channels
    x = elements * max(1, round(c.x.strides[2] / max(channels, 1))) ** 2
    weights = len(blocks) * c.taps[0] * quads * c.pixels * 256
    return Work(n * cycles, weights, x + elements * ELEMENT_BYTES[c.y.element] + _extra_bytes(c.operands, elements))


def _window(c: Window, machine: Machine) -> Work:
    n, height, width, channels = c.sizes
    each, finish = WINDOW_CYCLES[c.op, c.x.element in ("f32", "bf16")]
    one = math.prod(c.kernel) * each + finish + steps_cycles(c.steps)
    elements = n * height * width * channels
    x = n * math.prod(c.image) * channels * ELEMENT_BYTES[c.x.element]
    cycles = n * height * width * (math.ceil(channels / 16) * one + PIXEL_CYCLES)
    return Work(cycles, 0, x + elements * ELEMENT_BYTES[c.y.element])


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
    loads, stores = (16.0 * (o.strides[-1] not in (0, 1)) for o in (c.operands[0], c.y))  # element by element
    copies = not c.steps and c.operands[0].element == c.y.element
    looks_up = ISAS[c.isa].byte_lanes and [step.op for step in c.steps] == ["lut"] and all(o.element == "u8" for o in (*c.operands, c.y))
    lanes = 64 // ELEMENT_BYTES[c.y.element] if copies else 64 if looks_up else 16
    one = 1.0 if copies else LOOKED_UP_CYCLES if looks_up else LOADED_VECTOR_CYCLES + STORED_VECTOR_CYCLES + steps_cycles(c.steps)
    one += loads * lanes / 16
    if takes_whole_cycle(machine):  # two stores a cycle, beside the arithmetic
        one = max(one, stores / 2 * lanes / 16)
    else:
        one += stores * lanes / 16
    cycles = elements / length * (math.ceil(length / lanes) * one + (ROW_CYCLES / 8 if length < 256 else ROW_CYCLES))
    moved = elements * (ELEMENT_BYTES[c.operands[0].element] + ELEMENT_BYTES[c.y.element]) + _extra_bytes(c.operands[1:], elements)
    return Work(cycles, 0, moved)


def _table_softmax(c: codelets.TableSoftmax, machine: Machine) -> Work:
    """A maximum, a look-up, a sum and a multiplication."""
    rows, length = c.sizes
    return Work(rows * (7.5 * math.ceil(length / 16) + ROW_CYCLES), 0, 2 * rows * length)


def _pack(c: codelets.Pack, machine: Machine) -> Work:
    elements = math.prod(c.sizes)
    return Work(elements / 4, 0, 2 * elements)


def _pack_bf16(c: codelets.PackBf16, machine: Machine) -> Work:
    elements = math.prod(c.sizes)
    return Work(elements / 8, 0, 2 * ELEMENT_BYTES["bf16"] * elements)


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


INPUT_CYCLES, SUM_CYCLES = 150, 130  # of transforming a tile of x per vector, and of sums per vector with what is behind them
POINT_WEIGHT_CYCLES = 1.1  # of a vector of weights that a strip of tiles brings to the first-level cache

WINOGRAD_MEASURED = {"lane_f32": 1.5, "dot2_s16": 1.5}
"""Measured time over that arithmetic: the scratch passes through the caches between its three steps."""
WINOGRAD_MEASURED_256 = WINOGRAD_MEASURED | {"dot2_s16": 0.75}  # of 8 lanes, which have more ports than the rates below say


def winograd_rates(isa: str, compute: str, x: str = "") -> tuple[float, float]:
    """Multiply-accumulates per cycle of the direct 3x3 loop over elements `x` and of Winograd's products."""
    facts, machine = ISAS[isa], shipped(isa)
    if compute == "lane_f32":
        rate = facts.lanes / product_cycles("lane_f32", facts.lanes, machine)
        return DEPTHS["dot2_bf16"] * rate if x == "bf16" else rate, rate
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
    "stream": compressed_cost.stream,
    "columns": compressed_cost.columns,
    "sparse_gather": compressed_cost.sparse_gather,
    "sparse_lanes": compressed_cost.sparse_lanes,
    "sparse_pixels": compressed_cost.sparse_pixels,
    "row_lanes": compressed_cost.row_lanes,
    "depthwise": _depthwise,
    "depthwise_quads": _depthwise_quads,
    "window": _window,
    "rows": _rows,
    "map": _map,
    "table_softmax": _table_softmax,
    "pack": _pack,
    "pack_pairs": _pack,
    "pack_bf16": _pack_bf16,
    "pack_signs": _pack_signs,
    "embedding": _embedding,
    "insert": _insert,
    "attend": _attend,
}
_DATA_DEPENDENT = ("stream", "sparse_gather", "sparse_lanes", "sparse_pixels")  # kinds whose bytes depend on how many weights are zero
