"""The loop nest of softmax on stored bytes: greatest element, exponentials from a table with their sum, one rescaling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import TableSoftmax
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value

LANES = 16
BYTES = 64  # lanes of a vector of bytes


def emit(b: Builder, codelet: TableSoftmax, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    outer = codelet.sizes[:-1]
    low = b.mul(task, codelet.chunk)
    row = (_Bytes if ISAS[codelet.isa].byte_lanes else _Words)(b, codelet, buffers, instructions, scratch)

    def nest(dimension: int, place: tuple[Index, ...]) -> None:
        if dimension == len(outer):
            row.emit(place)
            return
        start, end = (low, b.minimum(b.add(low, codelet.chunk), outer[0])) if dimension == 0 else (0, outer[dimension])
        b.loop(start, end, 1, lambda i: nest(dimension + 1, (*place, i)))

    nest(0, ())


class _Row:
    def __init__(self, b: Builder, c: TableSoftmax, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.c, self.buffers, self.instructions, self.scratch = b, c, buffers, instructions, Address(scratch)
        self.length = c.sizes[-1]
        self.table = Address(buffers[c.table.buffer])

    def _word(self, number: int, element: str) -> Value:
        return self.b.load(element, Address(self.buffers[self.c.params], 4 * self.c.args[number]), invariant=True)

    def _ends(self, place: tuple[Index, ...]) -> tuple[Address, Address]:
        b, c = self.b, self.c
        return tuple(b.at(self.buffers[o.buffer], bytes_of(o, (*place, 0), b)) for o in (c.x, c.y))  # type: ignore[return-value]

    def _factor(self, total: Value) -> Value:
        """multiplier / f32(total) in LANES lanes."""
        b = self.b
        return b.splat(b.binary("fdiv", self._word(0, "f32"), b.op("llvm.sitofp", [total], "f32")), LANES)


class _Bytes(_Row):
    """64 bytes at a time; exponentials wait in scratch as u16, in the order that `pack_bytes` undoes.

    The last vector of a row reads past its end: what it finds there is masked.
    """

    def emit(self, place: tuple[Index, ...]) -> None:
        b = self.b
        x, y = self._ends(place)
        tables = [[b.load(f"{BYTES}xi8", self.table + 256 * half + BYTES * i, invariant=True) for i in range(4)] for half in (0, 1)]
        best = self._each(lambda i, count, acc: [b.binary("intr.umax", acc, self._read(x, i, count))], [b.constant(0, f"{BYTES}xi8")])
        greatest = b.splat(b.op("llvm.intr.vector.reduce.umax", best, "i8"), BYTES)

        def exponential(i: Index, count: int, *acc: Value) -> list[Value]:
            difference = b.binary("sub", greatest, b.load(f"{BYTES}xi8", b.at(x, i)))
            low, high = (self._kept(self.instructions.look_up_lanes(b, table, difference), count) for table in tables)
            made = []
            for half, sums in enumerate(acc):
                e = b.op("llvm.bitcast", [self._unpacked(low, high, half, 1)], "32xi16")
                b.store(e, b.at(self.scratch, b.mul(i, 2)) + 64 * half)
                made.append(self.instructions.dot2_s16(b, sums, e, b.like(1, e)))
            return made

        none = b.constant(0, f"{LANES}xi32")
        sums = self._each(exponential, [none, none])
        total = b.op("llvm.intr.vector.reduce.add", [b.binary("add", *sums)], "i32")
        factor, (zero, low, high) = self._factor(total), (self._word(n, "i32") for n in (1, 2, 3))

        def finish(i: Index, count: int) -> list[Value]:
            parts = []
            for half in (0, 1):
                e = b.load("32xi16", b.at(self.scratch, b.mul(i, 2)) + 64 * half)
                for quarter in (0, 1):
                    wide = b.op("llvm.bitcast", [self._unpacked(e, b.like(0, e), quarter, 2)], f"{LANES}xi32")
                    scaled = b.binary("fmul", b.cast("sitofp", wide, "f32"), factor)
                    parts.append(self.instructions.to_integer(b, scaled))
            found = self.instructions.pack_bytes(b, parts, zero, (low, high))
            for first, size in pieces(count, BYTES):
                part = found if size == BYTES else b.shuffle(found, found, list(range(first, first + size)))
                b.store(part, b.at(y, i) + first)
            return []

        self._each(finish, [])

    def _each(self, body: Callable[..., list[Value]], carried: list[Value]) -> list[Value]:
        """body(index, count, *carried) for every vector of the row."""
        whole = self.length // BYTES * BYTES
        carried = self.b.loop(0, whole, BYTES, lambda i, *acc: body(i, BYTES, *acc), carried)
        return body(whole, self.length - whole, *carried) if whole < self.length else carried

    def _read(self, x: Address, i: Index, count: int) -> Value:
        return self._kept(self.b.load(f"{BYTES}xi8", self.b.at(x, i)), count)

    def _kept(self, v: Value, count: int) -> Value:
        """The first `count` bytes, then zeros."""
        return v if count == BYTES else self.b.shuffle(v, self.b.like(0, v), [i if i < count else BYTES + i for i in range(BYTES)])

    def _unpacked(self, low: Value, high: Value, half: int, size: int) -> Value:
        """Elements of `size` bytes of both in turn, from one half of every 128 bits."""
        per = 16 // size
        lanes = [lane * per + half * per // 2 + i + which * 4 * per for lane in range(4) for i in range(per // 2) for which in (0, 1)]
        return self.b.shuffle(low, high, lanes)


class _Words(_Row):
    """16 elements at a time, a gathered table of i32; exponentials wait in scratch as i32."""

    def emit(self, place: tuple[Index, ...]) -> None:
        b = self.b
        x, y = self._ends(place)
        whole = self.length // LANES * LANES
        parts = pieces(self.length - whole, LANES)

        def read(i: Index, lanes: int) -> Value:
            return load(b, "u8", b.at(x, i), 1, lanes)

        best = b.loop(0, whole, LANES, lambda i, acc: [b.binary("intr.smax", acc, read(i, LANES))], [b.constant(0, f"{LANES}xi32")])
        greatest = b.op("llvm.intr.vector.reduce.smax", best, "i32")
        for first, count in parts:
            other = b.op("llvm.intr.vector.reduce.smax", [read(whole + first, count)], "i32")
            greatest = b.op("llvm.intr.smax", [greatest, other], "i32")

        def exponential(i: Index, lanes: int) -> Value:
            e = b.gather(self.table.base, b.binary("sub", b.splat(greatest, lanes), read(i, lanes)), "i32")
            b.store(e, b.at(self.scratch, b.mul(i, 4)))
            return e

        sums = b.loop(0, whole, LANES, lambda i, acc: [b.binary("add", acc, exponential(i, LANES))], [b.constant(0, f"{LANES}xi32")])
        total = b.op("llvm.intr.vector.reduce.add", sums, "i32")
        for first, count in parts:
            total = b.binary("add", total, b.op("llvm.intr.vector.reduce.add", [exponential(whole + first, count)], "i32"))
        factor = self._factor(total)
        zero, low, high = (self._word(n, "i32") for n in (1, 2, 3))

        def finish(i: Index, lanes: int) -> None:
            e = b.cast("sitofp", b.load(f"{lanes}xi32", b.at(self.scratch, b.mul(i, 4))), "f32")
            near = factor if lanes == LANES else b.shuffle(factor, factor, list(range(lanes)))
            found = b.binary("add", self.instructions.to_integer(b, b.binary("fmul", e, near)), b.splat(zero, lanes))
            found = b.binary("intr.smin", b.binary("intr.smax", found, b.splat(low, lanes)), b.splat(high, lanes))
            store(b, "u8", b.at(y, i), 1, found)

        b.loop(0, whole, LANES, lambda i: finish(i, LANES))
        for first, count in parts:
            finish(whole + first, count)
