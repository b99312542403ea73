"""What a streamed linear layer needs of x before the first weight: the sum of every group, and x as signed bytes where it is quantized.

Per row and group x = scale * q, q the nearest integer; int8 keeps |q| <= 127 as one byte, int16 |q| <= 32639 as two signed bytes, q = 256 *
high + low (for signed weights as unsigned ones, the high one 128 greater), 16 bits for `stream_pairs`, or |q| <= 16383 and tables of
`stream_sum_tables`. With `unit`, q = x. A group with infinity or NaN gets scale NaN, so that results that depend on it are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.stream_layout import DIGITS, SUMS_BYTES, StreamLayout
from qcc.passes.llvm.codelets import stream_product_tables, stream_sum_tables
from qcc.passes.llvm.codelets.access import bytes_of, load_first
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, kind_of, lanes_of

GREATEST = {0: 0.0, 1: 127.0, 2: 32639.0}
"""|q| by digits: 127 * 256 + 127 for two."""


def emit(b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
    """Fill the scratch that `StreamLayout` describes, one row after the other."""
    layout = StreamLayout(codelet)
    if not layout.needs_scratch:
        return
    has_tables, slack = bool(layout.table_bytes), 128 if layout.has_pairs else 64
    x, (full, rest) = codelet.x, divmod(codelet.sizes[2], codelet.group)

    def row(m: Index) -> None:
        source = b.at(buffers[x.buffer], bytes_of(x, (m, 0), b))
        target = b.at(scratch, b.mul(m, layout.row_bytes))
        for end in stream_sum_tables.ends(layout) if has_tables else [(digit + 1) * layout.digit_bytes for digit in range(layout.digits)]:
            b.store(b.constant(0, f"{slack}xi8"), target + (end - slack))  # what lies between the last k and the end of its step
        writer = _Group(b, layout, source, target, instructions)
        if codelet.decoder == "products":
            writer.levels = b.load("16xf32", Address(buffers[codelet.table]), invariant=True)
        b.loop(0, full, 1, lambda g: writer.write(g, codelet.group))
        if rest:
            writer.write(full, rest)

    b.loop(0, codelet.sizes[0], 1, row)


class _Group:
    def __init__(self, b: Builder, layout: StreamLayout, source: Address, target: Address, instructions: Any) -> None:
        self.b, self.layout, self.source, self.target, self.instructions = b, layout, source, target, instructions
        self.lanes, self.group = ISAS[layout.codelet.isa].lanes, layout.codelet.group
        self.has_tables = bool(layout.table_bytes)
        self.levels: Value | None = None  # 16xf32, at most 1 in magnitude, of decoder "products"
        tables = {"sums": stream_sum_tables.GREATEST, "products": stream_product_tables.GREATEST}
        self.greatest = tables.get(layout.codelet.decoder, GREATEST[DIGITS[layout.codelet.compute]])

    def write(self, g: Index, count: int) -> None:
        """Scale, digits and sums of group `g` of `count` k."""
        b, layout = self.b, self.layout
        start = b.mul(g, self.group)
        words = b.at(self.target, b.mul(g, 4))
        if not layout.digits:
            zero = b.constant(0.0, f"{self.lanes}xf32")
            (total,) = self._walk(start, count, lambda i, x, total: [b.binary("fadd", total, x)], [zero])
            b.store(reduce(b, "fadd", total), words + layout.sum_offset())
            return
        none = b.constant(0, f"{self.lanes}xi32")
        inverse = scale = b.constant(1.0, "f32")
        if not layout.codelet.unit:
            (most,) = self._walk(start, count, lambda i, x, most: [b.binary("intr.umax", most, self._magnitude(x))], [none])
            greatest = b.op("llvm.bitcast", [reduce(b, "intr.umax", most)], "f32")
            inverse, scale = self._scale(greatest)
        b.store(scale, words + layout.scale_offset())
        factor = b.splat(inverse, self.lanes)
        if self.levels is not None:
            self._walk(start, count, lambda i, x: self._multiply(i, b.binary("fmul", x, factor)), [])
            return
        if layout.has_pairs and not self.has_tables:
            self._write_spans(start, count, factor, words)
            return
        sums = self._walk(
            start, count, lambda i, x, *sums: self._quantize(i, x, factor, sums), [none] * (2 if self.has_tables else layout.digits)
        )
        totals = [reduce(b, "add", total) for total in sums]
        for i, total in enumerate(self._starts(totals) if layout.codelet.decoder == "shuffle" else totals):
            b.store(total, words + layout.sum_offset(i))

    def _write_spans(self, start: Index, count: int, factor: Value, words: Address) -> None:
        """x in 16 bits, and its sum for each span of the group."""
        b, layout = self.b, self.layout
        span = min(layout.codelet.span or count, count)

        def write(i: Index, size: int) -> None:
            none = b.constant(0, f"{self.lanes}xi32")
            (total,) = self._walk(b.add(start, b.mul(i, span)), size, lambda k, x, sum: self._quantize(k, x, factor, [sum]), [none])
            b.store(reduce(b, "add", total), b.at(words, b.mul(i, 4 * layout.groups)) + layout.sum_offset())

        whole, rest = divmod(count, span)
        b.loop(0, whole, 1, lambda i: write(i, span))
        if rest:
            write(whole, rest)

    def _starts(self, totals: Sequence[Value]) -> list[Value]:
        """What the sums of `stream_shuffle` begin with, by place: minus the bytes of zero, high ones first, times the sums of digits."""
        b, layout = self.b, self.layout
        zero = [layout.codelet.zero] if layout.codelet.level_digits == 1 else [layout.codelet.zero >> 8, layout.codelet.zero & 255]
        starts = [b.constant(0, "i32")] * layout.places
        for d, total in enumerate(totals):
            for j, byte in enumerate(zero):
                if d + j < layout.places:
                    starts[d + j] = b.binary("sub", starts[d + j], b.binary("mul", total, b.constant(byte, "i32")))
        return starts

    def _walk(self, start: Index, count: int, body: Callable[..., list[Value]], carried: list[Value]) -> list[Value]:
        """body(i, x[i : i + lanes], *carried) over the group, the last vector filled up with zeros."""
        b, whole = self.b, count // self.lanes * self.lanes

        def step(i: Index, *values: Value) -> list[Value]:
            at = b.add(start, i)
            return body(at, b.load(f"{self.lanes}xf32", b.at(self.source, b.mul(at, 4))), *values)

        carried = b.loop(0, whole, self.lanes, step, carried)
        if whole < count:
            at = b.add(start, whole)
            carried = body(at, load_first(b, b.at(self.source, b.mul(at, 4)), count - whole, self.lanes), *carried)
        return carried

    def _magnitude(self, x: Value) -> Value:
        """The bits of |x|, whose order as integers is that of the numbers, NaN above all."""
        bits = self.b.op("llvm.bitcast", [x], f"{self.lanes}xi32")
        return self.b.binary("and", bits, self.b.like(0x7FFFFFFF, bits))

    def _scale(self, greatest: Value) -> tuple[Value, Value]:
        """1 / scale, kept finite, and scale: NaN where `greatest` is infinite or NaN."""
        b, one = self.b, self.b.constant(1.0, "f32")
        limit, most = b.constant(2.0**126, "f32"), b.constant(self.greatest, "f32")
        inverse = b.binary("fdiv", most, greatest)
        inverse = b.select(b.compare("olt", inverse, limit), inverse, limit)
        not_finite = b.binary("fmul", greatest, b.constant(0.0, "f32"))
        return inverse, b.binary("fadd", b.binary("fdiv", one, inverse), not_finite)

    def _multiply(self, i: Index, x: Value) -> list[Value]:
        assert self.levels is not None
        stream_product_tables.write(self.b, x, self.levels, self.b.at(self.target, self.b.mul(i, self.layout.table_bytes)))
        return []

    def _quantize(self, i: Index, x: Value, factor: Value, sums: Sequence[Value]) -> list[Value]:
        b = self.b
        q = self.instructions.to_integer(b, b.binary("fmul", x, factor))
        if self.has_tables:
            return stream_sum_tables.write(b, self.layout, q, b.at(self.target, b.mul(i, SUMS_BYTES)), sums)
        if self.layout.has_pairs:
            b.store(b.cast("trunc", q, "i16"), b.at(self.target, b.mul(i, 2)))
            return [b.binary("add", sums[0], q)]
        digits = [q]
        if self.layout.codelet.decoder in ("indexed", "quads", "relative"):  # unsigned ones, the high one 128 too great
            digits = [b.binary("add", b.binary("ashr", q, b.like(8, q)), b.like(128, q)), q]
        elif self.layout.digits == 2:
            low = b.cast("sext", b.cast("trunc", q, "i8"), "i32")
            digits = [b.binary("ashr", b.binary("sub", q, low), b.like(8, q)), low]
        for digit, value in enumerate(digits):
            b.store(b.cast("trunc", value, "i8"), b.at(self.target, i) + digit * self.layout.digit_bytes)
        return [b.binary("add", total, value) for total, value in zip(sums, digits, strict=True)]


def reduce(b: Builder, name: str, vector: Value) -> Value:
    """The lanes of `vector` joined by `llvm.<name>`, halves first; a scalar."""
    assert "x" in kind_of(vector)
    while (lanes := lanes_of(vector)) > 1:
        halves = [b.shuffle(vector, vector, list(range(start, start + lanes // 2))) for start in (0, lanes // 2)]
        vector = b.binary(name, *halves)
    return b.extract(vector, 0)
