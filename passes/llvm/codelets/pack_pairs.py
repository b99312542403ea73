"""The loop nest that packs the computed right operand of an integer matmul in pairs of 16 bits, and sums its columns on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import PackPairs
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.column_blocks import for_blocks


def emit(b: Builder, codelet: PackPairs, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c, lanes = codelet, ISAS[codelet.isa].lanes
    k = c.sizes[2]
    steps = -(-k // 2)
    ones = b.constant(1, f"{2 * lanes}xi16")
    factor, zero = (b.splat(b.load("i32", Address(buffers[c.params], 4 * arg), invariant=True), lanes) for arg in c.args)
    zeros = b.cast("trunc", zero, "i16")

    def block(i0: Index, i1: Index, number: Index, vectors: list[int]) -> None:
        first = b.mul(number, c.vectors * lanes)
        target = b.at(buffers[c.y.buffer], b.add(bytes_of(c.y, (i0, i1, 0, 0), b), b.mul(first, steps * 4)))
        sums = b.at(buffers[c.bias.buffer], bytes_of(c.bias, (i0, i1, 0, first), b))
        for v, count in enumerate(vectors):
            source = b.at(buffers[c.x.buffer], bytes_of(c.x, (i0, i1, 0, first), b)) + v * lanes * c.x.strides[3]

            def step(i: Index, acc: Value, taken: int = 2, source: Address = source, count: int = count, v: int = v) -> list[Value]:
                pairs = _pairs(b, c, b.at(source, b.mul(i, 2 * c.x.strides[2])), count, taken, lanes, zeros)
                b.store(pairs, b.at(target, b.mul(i, len(vectors) * lanes * 4)) + v * lanes * 4)
                return [instructions.dot2_s16(b, acc, pairs, ones)]

            total = b.loop(0, k // 2, 1, step, [b.constant(0, f"{lanes}xi32")])
            if k % 2:
                total = step(steps - 1, total[0], 1)
            b.store(b.binary("sub", b.like(0, factor), b.binary("mul", factor, total[0])), sums + v * lanes * 4)

    for_blocks(b, c, task, block)


def _pairs(b: Builder, c: PackPairs, source: Address, count: int, taken: int, lanes: int, zeros: Value) -> Value:
    """`taken` (of 2) k's of `count` (of `lanes`) columns as [lane][2] of 16 bits; what is missing is 0."""
    k_stride, n_stride = c.x.strides[2:]
    nothing = b.like(0, zeros)
    rows = [_row(b, source + k * k_stride, n_stride, count, lanes, zeros) if k < taken else nothing for k in range(2)]
    return b.shuffle(rows[0], rows[1], [lane + lanes * j for lane in range(lanes) for j in (0, 1)])


def _row(b: Builder, source: Address, stride: int, count: int, lanes: int, zeros: Value) -> Value:
    """`count` bytes less their zero point, in a vector of `lanes` of 16 bits."""
    found = b.like(0, zeros)
    if stride == 1:
        parts = [(first, b.load(f"{size}xi8", source + first)) for first, size in pieces(count, lanes)]
    else:
        vector = b.op("llvm.mlir.poison", [], f"{count}xi8")
        for lane in range(count):
            vector = b.insert(vector, b.load("i8", source + lane * stride), lane)
        parts = [(0, vector)]
    for first, part in parts:
        size = part.type.shape[0]
        centred = b.binary("sub", b.cast("zext", part, "i16"), b.shuffle(zeros, zeros, list(range(size))))
        wide = b.shuffle(centred, centred, [i - first if first <= i < first + size else 0 for i in range(lanes)])
        found = b.shuffle(found, wide, [lanes + i if first <= i < first + size else i for i in range(lanes)])
    return found
