"""Lanes become vectors: a square of values in registers, transposed, and sums across lanes of many vectors at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qcc.passes.llvm.codelets.builder import Builder, Value, lanes_of


def transposed(b: Builder, vectors: Sequence[Value]) -> list[Value]:
    """As many vectors as each has lanes (a power of two): made[i][j] = vectors[j][i]."""
    made, size = list(vectors), len(vectors)
    distance = 1
    while distance < size:
        low = [i if not i & distance else size + i - distance for i in range(size)]
        high = [i + distance if not i & distance else size + i for i in range(size)]
        for i in range(size):
            if not i & distance:
                a, c = made[i], made[i + distance]
                made[i], made[i + distance] = b.shuffle(a, c, low), b.shuffle(a, c, high)
        distance *= 2
    return made


def across(b: Builder, vector: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """All lanes of a vector (a power of two) combined: the lower half with the upper one, again and again."""
    lanes = lanes_of(vector)
    while lanes > 1:
        lanes //= 2
        vector = combine(*(b.shuffle(vector, vector, list(range(first, first + lanes))) for first in (0, lanes)))
    return b.extract(vector, 0)


def sums_of(b: Builder, vectors: Sequence[Value]) -> Value:
    """One vector of f32 whose lane i is the sum over the lanes of vectors[i]; as many vectors as lanes, a power of two."""
    made, size = list(vectors), len(vectors)
    even, odd = (list(range(start, 2 * size, 2)) for start in (0, 1))
    while len(made) > 1:
        made = [b.binary("fadd", b.shuffle(p, q, even), b.shuffle(p, q, odd)) for p, q in zip(made[::2], made[1::2], strict=True)]
    return made[0]
