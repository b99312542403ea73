"""The loop nest of attention for a few queries, as a decoder has them: keys and values are read once, where they lie, a vector of keys at a
time, for all queries that share a head. What is kept between are scores, in the thread's scratch.

A vector of keys that the mask excludes for a query costs a comparison: neither its keys nor its values are read, so that time follows the
length of what was said so far, not that of the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.attention_codelet import Attend
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, load_first
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.functions import exp
from qcc.passes.llvm.codelets.lanes import Lanes
from qcc.passes.llvm.codelets.transposition import across, sums_of

MOST_SUMS = 8  # vectors of a result that stay in registers


def emit(b: Builder, codelet: Attend, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    heads = codelet.sizes[0] * codelet.sizes[1]
    low = b.mul(task, codelet.chunk)
    b.loop(low, b.minimum(b.add(low, codelet.chunk), heads), 1, lambda i: _Head(b, codelet, buffers, scratch, i).emit())


class _Head:
    def __init__(self, b: Builder, c: Attend, buffers: Sequence[Value], scratch: Value, number: Index) -> None:
        self.b, self.c, self.lanes = b, c, ISAS[c.isa].lanes
        _, heads, self.queries, self.keys, self.depth, self.width = c.sizes
        place = (*b.divmod(number, heads), 0, 0)
        self.q, self.k, self.v, self.y = (b.at(buffers[o.buffer], bytes_of(o, place, b)) for o in (c.q, c.k, c.v, c.y))
        self.mask = None if c.mask is None else b.at(buffers[c.mask.buffer], bytes_of(c.mask, place, b))
        self.scale = b.splat(b.load("f32", Address(buffers[c.params]), invariant=True), self.lanes)
        self.pitch = 4 * c.padded_keys
        self.scores = Address(scratch)
        self.sums = self.scores + self.queries * self.pitch
        self.inverses = self.sums + self.queries * self.width * 4

    def emit(self) -> None:
        b, vectors = self.b, range(0, 4 * self.width, 4 * self.lanes)
        self._blocks(self._score)
        b.loop(0, self.queries, 1, self._softmax)
        self._blocks(self._weigh)

        def finish(r: Index) -> None:
            factor = b.splat(b.load("f32", b.at(self.inverses, b.mul(r, 4))), self.lanes)
            target = b.at(self.y, b.mul(r, 4 * self.c.y.strides[2]))
            for at in vectors:
                b.store(b.binary("fmul", self._load(self._sums_of(r) + at), factor), target + at)

        b.loop(0, self.queries, 1, finish)

    def _blocks(self, body: Callable[[Index, int], None]) -> None:
        """body(first key, count) for every vector of keys."""
        whole = self.keys // self.lanes * self.lanes
        self.b.loop(0, whole, self.lanes, lambda first: body(first, self.lanes))
        if whole < self.keys:
            body(whole, self.keys - whole)

    def _score(self, first: Index, count: int) -> None:
        """Scores of `count` keys for every query; minus infinity where the mask says so, and behind the last key."""
        b, lanes = self.b, self.lanes
        keys = [b.at(self.k, b.mul(b.add(first, i), 4 * self.c.k.strides[2])) for i in range(count)]

        def query(r: Index) -> None:
            target = b.at(self._scores_of(r), b.mul(first, 4))
            mask = self._masked(r, first, count)

            def compute() -> None:
                query = b.at(self.q, b.mul(r, 4 * self.c.q.strides[2]))
                products = [self._product(query, key) for key in keys]
                score = b.binary("fmul", sums_of(b, products + products[:1] * (lanes - count)), self.scale)
                if mask is not None:
                    score = b.binary("fadd", score, mask)
                b.store(self._filled(score, count), target)

            if mask is None:
                compute()
                return
            b.store(b.like(-math.inf, mask), target)
            b.when(self._any(b.compare("une", mask, b.like(-math.inf, mask))), compute)

        b.loop(0, self.queries, 1, query)

    def _masked(self, r: Index, first: Index, count: int) -> Value | None:
        """The mask of `count` keys for query `r`."""
        b, mask = self.b, self.c.mask
        if mask is None or self.mask is None:
            return None
        here = b.at(self.mask, b.add(b.mul(r, 4 * mask.strides[2]), b.mul(first, 4)))
        return self._filled(load_first(b, here, count, self.lanes), count)

    def _filled(self, value: Value, count: int) -> Value:
        """Minus infinity behind the first `count` lanes."""
        b = self.b
        return b.shuffle(value, b.like(-math.inf, value), [i if i < count else self.lanes + i for i in range(self.lanes)])

    def _product(self, query: Address, key: Address) -> Value:
        """Lanes whose sum is the product of a query and a key."""
        b, total = self.b, None
        for at in range(0, 4 * self.depth, 4 * self.lanes):
            a, c = self._load(query + at), self._load(key + at)
            total = b.binary("fmul", a, c) if total is None else b.op("llvm.intr.fma", [a, c, total], f"{self.lanes}xf32")
        return total

    def _softmax(self, r: Index) -> None:
        """exp(score - greatest) in place of the scores, one over its sum, and sums of values that are 0 at first."""
        b, lanes, scores = self.b, self.lanes, self._scores_of(r)
        padded, kind = self.pitch // 4, f"{lanes}xf32"

        def greater(i: Index, most: Value) -> list[Value]:
            found = self._load(b.at(scores, b.mul(i, 4)))
            return [b.select(b.compare("ogt", found, most), found, most)]

        (most,) = b.loop(0, padded, lanes, greater, [b.constant(-math.inf, kind)])
        most = b.splat(across(b, most, lambda p, q: b.select(b.compare("ogt", p, q), p, q)), lanes)

        def exponential(i: Index, total: Value) -> list[Value]:
            here = b.at(scores, b.mul(i, 4))
            e = exp(Lanes(b, b.binary("fsub", self._load(here), most))).value
            b.store(e, here)
            return [b.binary("fadd", total, e)]

        (total,) = b.loop(0, padded, lanes, exponential, [b.constant(0.0, kind)])
        total = across(b, total, lambda p, q: b.binary("fadd", p, q))
        b.store(b.binary("fdiv", b.constant(1.0, "f32"), total), b.at(self.inverses, b.mul(r, 4)))
        for at in range(0, 4 * self.width, 4 * lanes):
            b.store(b.constant(0.0, kind), self._sums_of(r) + at)

    def _weigh(self, first: Index, count: int) -> None:
        """Add `count` values times their exponentials to the sums of every query."""
        b, lanes = self.b, self.lanes
        values = [b.at(self.v, b.mul(b.add(first, i), 4 * self.c.v.strides[2])) for i in range(count)]

        def query(r: Index) -> None:
            weights, sums = b.at(self._scores_of(r), b.mul(first, 4)), self._sums_of(r)

            def add(part: range) -> None:
                made = [self._load(sums + at) for at in part]
                for i, value in enumerate(values):
                    weight = b.splat(b.load("f32", weights + 4 * i), lanes)
                    made = [
                        b.op("llvm.intr.fma", [weight, self._load(value + at), one], f"{lanes}xf32")
                        for at, one in zip(part, made, strict=True)
                    ]
                for at, one in zip(part, made, strict=True):
                    b.store(one, sums + at)

            def all_parts() -> None:
                step = 4 * lanes
                for begin in range(0, 4 * self.width, MOST_SUMS * step):
                    add(range(begin, min(begin + MOST_SUMS * step, 4 * self.width), step))

            found = self._load(weights)
            b.when(self._any(b.compare("une", found, b.like(0.0, found))), all_parts)

        b.loop(0, self.queries, 1, query)

    # --- pieces ---------------------------------------------------------------------------------------------------------------------

    def _any(self, lanes: Value) -> Value:
        """Whether one of the i1 `lanes` is set."""
        b = self.b
        word = b.op("llvm.bitcast", [lanes], f"i{self.lanes}")
        return b.compare("ne", word, b.like(0, word))

    def _load(self, address: Address) -> Value:
        return self.b.load(f"{self.lanes}xf32", address)

    def _scores_of(self, r: Index) -> Address:
        return self.b.at(self.scores, self.b.mul(r, self.pitch))

    def _sums_of(self, r: Index) -> Address:
        return self.b.at(self.sums, self.b.mul(r, 4 * self.width))
