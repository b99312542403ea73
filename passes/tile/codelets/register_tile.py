"""Choosing the register tile of a contraction and how it is cut into tasks."""

from __future__ import annotations

import math

from qcc.dialects.codelet import ISAS

TASK_MACS = 2_000_000  # below this, waking another thread costs more than it brings
MOST_TASKS = 32


def choose_tile(isa: str, compute: str, height: int, width: int, channels: int, *, one_row: bool, summed: bool) -> tuple[int, int, int]:
    """(rows, columns, vectors): the fewest wasted multiplications first, then the most accumulators, then the fewest loads per product.

    `one_row`: weights differ between rows, so a tile may not span them. `summed`: one more accumulator per pixel.
    """
    facts = ISAS[isa]
    wide = 2 if compute == "lane_i64" else 1
    available = max(facts.registers // wide - 3, 2)  # the rest: weights and the broadcast input
    needed = -(-channels // facts.lanes)
    best: tuple[tuple[float, float, float], tuple[int, int, int]] | None = None
    for vectors in range(1, min(4, needed) + 1):
        for rows in range(1, (1 if one_row else min(4, height)) + 1):
            for columns in range(1, min(width, 28) + 1):
                pixels = rows * columns
                if pixels * (vectors + summed) > available or (rows > 1 and columns < width):
                    continue
                tiles = math.ceil(height / rows) * math.ceil(width / columns) * math.ceil(needed / vectors)
                used = math.ceil(needed / vectors) * vectors if needed % vectors else needed
                loads = (pixels + vectors) / (pixels * vectors)
                latency = max(1.0, 10 / (pixels * vectors))  # few accumulators wait for each other
                cost = used * height * width / channels * latency * (1 + loads) + tiles * 0.5 / channels
                tail = (width % columns != 0) + (height % rows != 0)
                key = (cost * (1 + 0.03 * tail), -pixels * vectors, loads)
                if best is None or key < best[0]:
                    best = key, (rows, columns, vectors)
    assert best is not None
    return best[1]


def choose_chunks(tile: tuple[int, int, int], outer: int, blocks: int, height: int, macs: int) -> tuple[int, int]:
    """(blocks, rows) per task, such that `outer` times the chunks of both are enough tasks and weights are read by few of them."""
    wanted = max(1, min(MOST_TASKS, macs // TASK_MACS))
    if outer >= wanted:
        return blocks, height
    rows_possible = math.ceil(height / tile[0])
    wanted = math.ceil(wanted / outer)
    row_chunks = min(rows_possible, wanted) if rows_possible >= 4 else 1
    rows = math.ceil(rows_possible / row_chunks) * tile[0]
    block_chunks = min(blocks, math.ceil(wanted / row_chunks))
    return math.ceil(blocks / block_chunks), min(rows, height) if rows >= height else rows
