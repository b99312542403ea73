"""The loop nest that packs the computed right operand of an integer matmul, and sums its columns on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Pack
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.column_blocks import for_blocks

FLIP = -128  # as a signed byte: stored - 128


def emit(b: Builder, codelet: Pack, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c, lanes = codelet, ISAS[codelet.isa].lanes
    steps = -(-c.sizes[2] // 4)
    ones = b.constant(1, f"{4 * lanes}xi8")
    factor, extra = (b.splat(b.load("i32", Address(buffers[c.params], 4 * arg), invariant=True), lanes) for arg in c.args)

    def block(i0: Index, i1: Index, number: Index, vectors: list[int]) -> None:
        first = b.mul(number, c.vectors * lanes)
        target = b.at(buffers[c.y.buffer], b.add(bytes_of(c.y, (i0, i1, 0, 0), b), b.mul(first, steps * 4)))
        sums = b.at(buffers[c.bias.buffer], bytes_of(c.bias, (i0, i1, 0, first), b))
        for v, count in enumerate(vectors):
            source = b.at(buffers[c.x.buffer], bytes_of(c.x, (i0, i1, 0, first), b)) + v * lanes * c.x.strides[3]

            def step(k: Index, acc: Value, taken: int = 4, source: Address = source, count: int = count, v: int = v) -> list[Value]:
                quads = _quads(b, c, b.at(source, b.mul(k, 4 * c.x.strides[2])), count, taken, lanes)
                b.store(quads, b.at(target, b.mul(k, len(vectors) * lanes * 4)) + v * lanes * 4)
                return [instructions.dot4_u8s8(b, acc, ones, quads)]

            total = b.loop(0, c.sizes[2] // 4, 1, step, [b.constant(0, f"{lanes}xi32")])
            if c.sizes[2] % 4:
                total = step(steps - 1, total[0], c.sizes[2] % 4)
            b.store(b.binary("sub", extra, b.binary("mul", factor, total[0])), sums + v * lanes * 4)

    for_blocks(b, c, task, block)


def _quads(b: Builder, c: Pack, source: Address, count: int, taken: int, lanes: int) -> Value:
    """`taken` (of 4) k's of `count` (of `lanes`) columns as [lane][4] signed bytes; what is missing is 0."""
    k_stride, n_stride = c.x.strides[2:]
    if k_stride == 1 and taken == 4:
        words = b.op("llvm.mlir.poison", [], f"{count}xi32")
        for lane in range(count):
            words = b.insert(words, b.load("i32", source + lane * n_stride), lane)
        raw = b.op("llvm.bitcast", [words], f"{4 * count}xi8")
        return _widened(b, b.binary("xor", raw, b.like(FLIP, raw)), 4 * lanes)
    rows = [_row(b, source + k * k_stride, n_stride, count, lanes) if k < taken else b.constant(0, f"{lanes}xi8") for k in range(4)]
    pairs = [b.shuffle(rows[i], rows[i + 1], [lane + lanes * j for lane in range(lanes) for j in (0, 1)]) for i in (0, 2)]
    return b.shuffle(pairs[0], pairs[1], [2 * lane + j + 2 * lanes * half for lane in range(lanes) for half in (0, 1) for j in (0, 1)])


def _row(b: Builder, source: Address, stride: int, count: int, lanes: int) -> Value:
    """`count` bytes, flipped, in a vector of `lanes`."""
    if stride == 1:
        found = b.constant(0, f"{lanes}xi8")
        for first, size in pieces(count, lanes):
            part = b.load(f"{size}xi8", source + first)
            part = _widened(b, b.binary("xor", part, b.like(FLIP, part)), lanes)
            found = b.shuffle(found, part, [lanes + i - first if first <= i < first + size else i for i in range(lanes)])
        return found
    vector = b.op("llvm.mlir.poison", [], f"{count}xi8")
    for lane in range(count):
        vector = b.insert(vector, b.load("i8", source + lane * stride), lane)
    return _widened(b, b.binary("xor", vector, b.like(FLIP, vector)), lanes)


def _widened(b: Builder, vector: Value, lanes: int) -> Value:
    """`vector` followed by zeros."""
    count = vector.type.shape[0]
    if count == lanes:
        return vector
    zeros = b.like(0, vector)
    return b.shuffle(vector, zeros, [i if i < count else count for i in range(lanes)])
