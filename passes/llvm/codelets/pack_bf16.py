"""The loop nest that packs the computed right operand of a bf16 matmul in pairs along the reduction.

Where k is what lies side by side, as of keys, a pair is a word already, and squares of words turn around; else two rows are interleaved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import PackBf16
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.column_blocks import for_blocks
from qcc.passes.llvm.codelets.transposition import transposed

SIZE = 2  # bytes of an element


def emit(b: Builder, codelet: PackBf16, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c, lanes = codelet, ISAS[codelet.isa].lanes
    k = c.sizes[2]

    def block(i0: Index, i1: Index, number: Index, vectors: list[int]) -> None:
        first = b.mul(number, c.vectors * lanes)
        target = b.at(buffers[c.y.buffer], b.add(bytes_of(c.y, (i0, i1, 0, 0), b), b.mul(first, -(-k // 2) * 2 * SIZE)))
        source = b.at(buffers[c.x.buffer], bytes_of(c.x, (i0, i1, 0, first), b))
        step_bytes = len(vectors) * lanes * 2 * SIZE
        for v, count in enumerate(vectors):
            _columns(b, c, source + v * lanes * c.x.strides[3] * SIZE, count, target + v * lanes * 2 * SIZE, step_bytes)

    for_blocks(b, c, task, block)


def _columns(b: Builder, c: PackBf16, source: Address, count: int, target: Address, step_bytes: int) -> None:
    """All pairs of `count` columns from `source` on."""
    lanes, k = ISAS[c.isa].lanes, c.sizes[2]
    row, column = (stride * SIZE for stride in c.x.strides[2:])
    squares = k // 2 // lanes if row == SIZE else 0

    def square(number: Index) -> None:
        here = b.at(source, b.mul(number, lanes * 2 * SIZE))
        words = [b.load(f"{lanes}xi32", here + lane * column) for lane in range(count)]
        made = transposed(b, [*words, *[b.constant(0, f"{lanes}xi32")] * (lanes - count)])
        to = b.at(target, b.mul(number, lanes * step_bytes))
        for i, pairs in enumerate(made):
            b.store(pairs, to + i * step_bytes)

    def step(number: Index) -> None:
        here = b.at(source, b.mul(number, 2 * row))
        _store(b, _row(b, here, column, count, lanes), _row(b, here + row, column, count, lanes), b.at(target, b.mul(number, step_bytes)))

    b.loop(0, squares, 1, square)
    b.loop(squares * lanes, k // 2, 1, step)
    if k % 2:
        last = _row(b, source + (k - 1) * row, column, count, lanes)
        _store(b, b.like(0, last), last, target + k // 2 * step_bytes)


def _store(b: Builder, first: Value, second: Value, place: Address) -> None:
    lanes = first.type.shape[0]
    b.store(b.shuffle(first, second, [lane + lanes * j for lane in range(lanes) for j in (0, 1)]), place)


def _row(b: Builder, source: Address, stride: int, count: int, lanes: int) -> Value:
    """`count` elements, `stride` bytes apart, in a vector of `lanes` of 16 bits; the others are 0."""
    if stride == SIZE and count == lanes:
        return b.load(f"{lanes}xi16", source)
    found = b.constant(0, f"{lanes}xi16")
    if stride != SIZE:
        for lane in range(count):
            found = b.insert(found, b.load("i16", source + lane * stride), lane)
        return found
    for first, size in pieces(count, lanes):
        part = b.load(f"{size}xi16", source + first * SIZE)
        wide = b.shuffle(part, part, [min(i, size - 1) for i in range(lanes)])
        found = b.shuffle(found, wide, [lanes + i - first if first <= i < first + size else i for i in range(lanes)])
    return found
