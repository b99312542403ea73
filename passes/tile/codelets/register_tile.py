"""Choosing the register tile of a contraction and how it is cut into tasks."""

from __future__ import annotations

import math

from qcc.dialects.codelet import ISAS

TASK_MACS = 2_000_000  # below this, waking another thread costs more than it brings
MOST_TASKS = 32
RESIDENT_BYTES = 256 * 1024  # of weights that stay in the second-level cache beside the activations


CYCLES = {
    "dot4_u8s8": (0.5, 5.0),
    "pairs_u8s8": (1.0, 1.0),
    "dot2_s16": (0.67, 1.0),
    "lane_f32": (0.5, 4.0),
    "lane_i32": (1.5, 5.0),
    "lane_i64": (3.0, 5.0),
}
"""Cycles of one vector multiply-add at full rate, and least cycles between two of them on one accumulator."""


TEMPORARIES = {"dot2_s16": 1, "pairs_u8s8": 3}
"""Registers for products on their way to an accumulator, and for constants."""


def choose_tile(
    isa: str, compute: str, height: int, width: int, channels: int, steps: int, *, one_row: bool, summed: bool
) -> tuple[int, int, int]:
    """(rows, columns, vectors) with the fewest predicted cycles for height x width pixels, `channels` and a reduction of `steps` steps.

    All accumulators, a vector of weights each and one broadcast of x stay in registers. `one_row`: weights differ between rows, so a
    tile may not span them. `summed`: one more accumulator per pixel. The steps of pairs_u8s8 are those of one vector of channels.
    """
    facts = ISAS[isa]
    wide = 2 if compute == "lane_i64" else 1
    needed = -(-channels // facts.lanes)
    found: list[tuple[float, tuple[int, int, int]]] = []
    for vectors in range(1, (1 if compute == "pairs_u8s8" else min(4, needed)) + 1):
        for rows in range(1, (1 if one_row else min(4, height)) + 1):
            for columns in range(1, min(width, 28) + 1):
                registers = (rows * columns * (vectors + summed) + vectors + 1) * wide + TEMPORARIES.get(compute, 0)
                if registers > facts.registers or (rows > 1 and columns < width):
                    continue
                cycles = sum(
                    across * down * count * _cycles(compute, r * q, deep, steps)
                    for r, down in _parts(height, rows)
                    for q, across in _parts(width, columns)
                    for deep, count in _parts(needed, vectors)
                )
                variants = len(_parts(height, rows)) * len(_parts(width, columns)) * len(_parts(needed, vectors))
                found.append((cycles * (1 + 0.01 * (variants - 1)), (rows, columns, vectors)))
    return min(found, default=(0.0, (1, 1, 1)))[1]


def _parts(size: int, tile: int) -> list[tuple[int, int]]:
    """(tile size, how many) for the whole tiles and for the rest."""
    return [(t, n) for t, n in ((tile, size // tile), (size % tile, 1)) if t and n]


def _cycles(compute: str, pixels: int, vectors: int, steps: int) -> float:
    """Cycles of one register tile: its reduction, then about 6 per result vector and 20 to begin and end."""
    rate, latency = CYCLES[compute]
    return steps * (max(pixels * vectors * rate, (pixels + vectors) / 2, latency) + 0.5) + 6 * pixels * vectors + 20


def choose_chunks(tile: tuple[int, int, int], outer: int, blocks: int, height: int, macs: int, weight_bytes: int) -> tuple[int, int]:
    """(blocks, rows) per task, such that `outer` times the chunks of both are enough tasks.

    Tasks share out rows where all weights stay in the second-level cache, so that few read the same rows of x, and blocks where they do
    not, so that each weight comes from memory once and is then used for the whole image.
    """
    wanted, rows_possible = max(1, min(MOST_TASKS, macs // TASK_MACS)), math.ceil(height / tile[0])
    if weight_bytes > RESIDENT_BYTES:
        block_chunks = min(blocks, wanted)
        row_chunks = min(rows_possible, max(1, wanted // (block_chunks * outer))) if rows_possible >= 4 else 1
    elif outer >= wanted:
        return blocks, height
    else:
        wanted = math.ceil(wanted / outer)
        row_chunks = min(rows_possible, wanted) if rows_possible >= 4 else 1
        block_chunks = min(blocks, math.ceil(wanted / row_chunks))
    rows = math.ceil(rows_possible / row_chunks) * tile[0]
    return math.ceil(blocks / block_chunks), min(rows, height)
