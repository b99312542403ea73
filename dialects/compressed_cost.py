"""Predicted work of codelets that read weights as they are stored: streamed in few bits, without zeros, or by the columns that x has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, RowLanes, SparseGather, SparseLanes, SparsePixels
from qcc.dialects.codelet_work import EXPOSED_WEIGHTS, STORED_VECTOR_CYCLES, Work, product_cycles, steps_cycles
from qcc.dialects.column_codelet import COLUMNS, Columns
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import Machine


def stream(c: Any, machine: Machine, stored_bytes: int) -> Work:
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
    expanding, tables = decodings * _of(EXPAND_CYCLES, c.isa).get((c.decoder, c.bits), 0.0), 0.0
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
    if c.decoder == "relative" and stored_bytes:
        decoded, each, expanding = 8 * (stored_bytes - headers) / (c.bits + 4) / 16, RELATIVE_CYCLES[0], decodings * RELATIVE_CYCLES[1]
    cycles = decoded * (each * rows + expanding) + rows * (vectors * (steps_cycles(c.steps) + STORED_VECTOR_CYCLES) + tables)
    weights = vectors * 16 * k * c.bits // 8 + headers
    if c.decoder in ("bitmap", "bitmap_f32", "indexed", "quads", "relative"):
        weights = stored_bytes or weights + vectors * 2 * k
    weights = int(READ.get(c.decoder, 1.0) * weights)
    return Work(cycles, weights, rows * (channels + k) * 4, exposed=None)


def sparse_gather(c: SparseGather, machine: Machine, stored_bytes: int) -> Work:
    rows, channels, k = c.sizes
    lanes = ISAS[c.isa].lanes
    stored = stored_bytes or channels * math.ceil(k / lanes) * c.step_bytes
    finish = math.ceil(channels / lanes) * rows * (steps_cycles(c.steps) + STORED_VECTOR_CYCLES)
    cycles = stored / c.step_bytes * rows * _of(GATHER_CYCLES, c.isa) + channels * CHANNEL_CYCLES + finish
    return Work(cycles, stored, rows * (channels + k) * 4, exposed=None)


def sparse_lanes(c: SparseLanes, machine: Machine, stored_bytes: int) -> Work:
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


def row_lanes(c: RowLanes, machine: Machine) -> Work:
    lanes = ISAS[c.isa].lanes
    vectors = math.ceil(c.sizes[0] / lanes) * c.padded_k
    return Work(vectors * TURN_CYCLES, 0, 2 * vectors * lanes * 4)


def sparse_pixels(c: SparsePixels, machine: Machine, stored_bytes: int) -> Work:
    lanes = ISAS[c.isa].lanes
    n, height, width, channels = c.sizes
    pixels, total, blocks = n * height * width, c.blocks[-1][1], len(c.blocks)
    stored = (stored_bytes or c.heads_bytes + 6 * channels * total) - c.heads_bytes
    vectors, chunks = math.ceil(pixels / lanes), math.ceil(channels / c.chunk)
    squares = c.taps[0] * c.taps[1] * c.run_squares
    cycles = chunks * (vectors * squares * lanes * TURN_WORD_CYCLES + pixels * PLACE_CYCLES)
    cycles += stored / 6 * (vectors * product_cycles("dot4_u8s8", lanes, machine) + c.tiles * QUADRUPLE_CYCLES)
    cycles += channels * blocks * (c.tiles / c.group * GROUP_CYCLES + vectors * ADDED_SUM_CYCLES)
    cycles += vectors * channels * (TURN_RESULT_CYCLES + BROADCAST_STEPS * steps_cycles(c.steps))
    x = n * height * max(c.x.strides[1], width * c.x.strides[2])
    return Work(cycles, stored_bytes or stored, x + pixels * channels, exposed=None)


def _of(constants: Mapping[int | str, Any], isa: str) -> Any:
    """The constant of an instruction set: its own, or that of its lanes."""
    return constants.get(isa, constants[ISAS[isa].lanes])


EXPAND_CYCLES: dict[int | str, dict[tuple[str, int], float]] = {
    16: {("bitmap_f32", 32): 3.2, ("bitmap", 8): 0.4, ("bitmap", 4): 0.3},
    "avx512_bf16": {("bitmap_f32", 32): 2.4, ("bitmap", 8): 0.55, ("bitmap", 4): 0.3},
    8: {},
}
"""Of one vector of one k, by decoder and bits: expanding what is stored, once for up to 8 rows."""
LOOKED_UP_CYCLES = {("sums", 1): 0.18, ("sums", 2): 0.36, ("sums", 3): 0.54, ("shuffle", 4): 0.9}
"""Of one vector of one k, decoding and multiplying by x of 16 bits, where that is not the same for all codes."""
INDEXED_CYCLES = (1.15, 1.5)
"""Of 16 values that have their columns: multiplying them by a row of x, and finding their places (2048 x 2048 of 10 %, Zen 4)."""
RELATIVE_CYCLES = (1.1, 0.9)
"""Likewise where the columns are distances of 4 bits (11008 x 4096 of 30 %, Zen 4)."""
PANEL_PRODUCTS = 1.17  # times a fused multiply-add at full rate: weights and x come from memory
EXPANDED_CYCLES = 0.65  # of multiplying it, where it is f32
READ = {"bitmap": 1.08, "bitmap_f32": 1.15, "relative": 1.15}
"""Of the time of a stream: values of a bitmap come in pieces of any length; beside distances x leaves the first-level cache (Zen 4)."""
NARROW_CYCLES = {"f32": (1.8, 0.7), "table": (19.0, 0.7), "planes": (0.65, 0.6), "sums": (0.38, 0.0), "products": (0.0, 1.75)}
"""In registers of 8 lanes: decoding 16 weights ("sums": a bit of each), then multiplying by a row of x; float tables are gathered."""
TABLE_CYCLES = {"sums": 6.5, "products": 14.0}  # of making the tables of an x
GATHER_CYCLES: dict[int | str, float] = {16: 13.5, "avx512_bf16": 16.5, 8: 16.0, "generic": 20.0}
"""Of a vector of weights and what is gathered for it, by lanes; Zen 4 loads lane by lane."""
CHANNEL_CYCLES = 6.0  # to begin and end a channel whose weights are gathered for
BROADCAST_CYCLES, BROADCAST_VECTOR_CYCLES = 0.85, 0.87  # a weight, and each vector of rows that it meets
HEAD_CYCLES, KEPT_SUM_CYCLES = 8.0, 2.2  # of a channel in a block of k, and each vector of its sums, which come from the second-level cache
TURN_WORD_CYCLES, TURN_RESULT_CYCLES = 5.0, 1.2  # of a vector of x, and of a vector of sums that becomes bytes
QUADRUPLE_CYCLES, GROUP_CYCLES = 1.2, 33.0  # of a block of four channels beside its products, and of a group of channels in a block of x
ADDED_SUM_CYCLES, PLACE_CYCLES = 0.3, 1.0  # of a vector of sums in a block of x, and of listing where a pixel is
BROADCAST_STEPS = 0.8  # of the time of steps whose arguments are vectors
TURN_CYCLES = 9.0  # of a vector in a square that is turned around, with load and store


COLUMN_CYCLES = {"dot4_u8s8": 12.0, "dot2_s16": 3.0}  # of interleaving and multiplying a unit of one group of columns
LISTED_CYCLES = 3.0  # of looking at one element of x
SCATTERED = 0.4  # times the square of the zeros: what reading is slower by, because prefetchers follow runs that end


def columns(c: Columns, machine: Machine) -> Work:
    """Only the columns that something multiplies are read; the list of them is made by every thread."""
    channels, k = c.sizes
    group, lanes = COLUMNS[c.compute], ISAS[c.isa].lanes
    units, groups = math.ceil(channels / (group * lanes)), math.ceil(k * c.density / group)
    blocks = math.ceil(channels / c.width)
    cycles = groups * (units * COLUMN_CYCLES[c.compute] + 10.0 * blocks) + k * LISTED_CYCLES
    finish = units * group * (steps_cycles(c.steps) + STORED_VECTOR_CYCLES)
    exposed = EXPOSED_WEIGHTS * (1 + SCATTERED * (1 - c.density) ** 2)
    return Work(cycles + finish, int(blocks * c.width * k * c.density), k + channels * ELEMENT_BYTES[c.y.element], exposed)
