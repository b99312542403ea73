"""Choosing the register tile of a contraction and how it is cut into tasks."""

from __future__ import annotations

import math

from qcc.dialects.codelet import WIDE
from qcc.dialects.codelet_cost import hides_loads, parts, sign_cycles, tile_cycles
from qcc.dialects.codelet_work import product_cycles
from qcc.dialects.instruction_sets import ISAS, weights_in_memory
from qcc.dialects.machine import DEFAULTS, shipped
from qcc.dialects.sign_codelet import Signs
from qcc.passes.tile.codelets.tasks import even_chunk

TASK_MACS = 1_000_000  # below this, waking another thread costs more than it brings
TASK_BYTES = 256 * 1024  # of weights, the same where reading them is what takes time
MOST_TASKS = 32
RESIDENT_BYTES = 256 * 1024  # of weights that stay in the second-level cache beside the activations
TYPICAL = DEFAULTS["emerald-rapids-vnni"]  # not the machine measured: the same model gives the same code wherever it is compiled
MOST_VECTORS = 4  # of a tile
FINISH_CYCLES = 5.0  # of a result vector, whatever its steps are: tiles of one layer differ little in it


TEMPORARIES = {"dot2_s16": 1, "dot2_s16_i64": 1, "pairs_u8s8": 3, "popcount_words": 2, "popcount_bytes": 5}
"""Registers for products on their way to an accumulator, and for constants."""


def choose_tile(
    isa: str, compute: str, element: str, height: int, width: int, channels: int, steps: int, *,
    one_row: bool, summed: bool, signs: Signs | None = None,
) -> tuple[int, int, int]:  # fmt: skip
    """(rows, columns, vectors) with the fewest predicted cycles for height x width pixels, `channels` and a reduction of `steps` steps.

    The cycles are those of `dialects/codelet_cost.py`. All accumulators, a vector of weights each (but for `weights_in_memory` of weights
    stored as `element`) and one broadcast of x stay in registers. `one_row`: weights differ between rows, so a tile may not span them.
    `summed`: one more accumulator per pixel. The steps of pairs_u8s8 are those of one vector of channels. `signs`: of a product of bits.
    """
    facts = ISAS[isa]
    wide = 2 if compute in WIDE or (signs and signs.x_planes == signs.w_planes == 2) else 1
    needed = -(-channels // facts.lanes)
    rate = sign_cycles(isa, compute, signs) if signs else product_cycles(compute, facts.lanes, TYPICAL)
    sums = _most_sums(isa, compute, steps)
    found: list[tuple[float, tuple[int, int, int]]] = []
    for vectors in range(1, (1 if compute == "pairs_u8s8" else min(MOST_VECTORS, needed)) + 1):
        for rows in range(1, (1 if one_row else min(4, height)) + 1):
            for columns in range(1, min(width, 28) + 1):
                in_memory = 0 if summed else weights_in_memory(isa, compute, element, rows * columns, vectors)
                registers = (rows * columns * (vectors + summed) + vectors + 1) * wide + TEMPORARIES.get(compute, 0)
                registers += vectors if signs and signs.w_planes == 2 and wide == 1 else 0
                if registers - (in_memory > 0) > facts.registers or (rows > 1 and columns < width) or rows * columns * vectors > sums:
                    continue
                cycles = sum(
                    across * down * count * tile_cycles(compute, r * q, deep, steps, rate, FINISH_CYCLES, in_memory)
                    for r, down in parts(height, rows)
                    for q, across in parts(width, columns)
                    for deep, count in parts(needed, vectors)
                )
                variants = len(parts(height, rows)) * len(parts(width, columns)) * len(parts(needed, vectors))
                found.append((cycles * (1 + 0.01 * (variants - 1)), (rows, columns, vectors)))
    return min(found, default=(0.0, (1, 1, 1)))[1]


def _most_sums(isa: str, compute: str, steps: int) -> int:
    """How many accumulators a tile may have, beside what fits the registers.

    Where a product takes a whole cycle, what happens to the results of a small tile runs beside the products of the next one: a core looks
    some 300 instructions ahead. Weights that leave the first-level cache are wanted by 4 pixels at once. In floats it makes no difference.
    """
    facts, machine = ISAS[isa], shipped(isa)
    if compute != "dot4_u8s8" or not hides_loads(compute, product_cycles(compute, facts.lanes, machine)):
        return facts.registers
    block_bytes = steps * MOST_VECTORS * facts.lanes * 4
    return MOST_VECTORS * (2 if block_bytes <= machine.cache_bytes["l1"] / 2 else 4)


def choose_chunks(tile: tuple[int, int, int], outer: int, blocks: int, height: int, macs: int, weight_bytes: int) -> tuple[int, int]:
    """(blocks, rows) per task, such that `outer` times the chunks of both are enough tasks.

    Tasks share out rows where all weights stay in the second-level cache, so that few read the same rows of x, and blocks where they do
    not, so that each weight comes from memory once and is then used for the whole image.
    """
    wanted = max(1, min(MOST_TASKS, max(macs // TASK_MACS, weight_bytes // TASK_BYTES)))
    rows_possible = math.ceil(height / tile[0])
    if weight_bytes > RESIDENT_BYTES:
        block_chunks = min(blocks, wanted)
        row_chunks = min(rows_possible, max(1, wanted // (block_chunks * outer))) if rows_possible >= 4 else 1
    elif outer >= wanted:
        return blocks, height
    else:
        wanted = math.ceil(wanted / outer)
        row_chunks = min(rows_possible, wanted) if rows_possible >= 4 else 1
        block_chunks = min(blocks, math.ceil(wanted / row_chunks))
    per_task = even_chunk(blocks, block_chunks, outer)
    rows = even_chunk(rows_possible, row_chunks, outer * math.ceil(blocks / per_task)) * tile[0]
    return per_task, min(rows, height)
