"""Where a stream codelet finds its weights and what it keeps in scratch: one arithmetic for the packer and the code generator.

Sizes are in bytes unless named otherwise. See `dialects.codelet.Stream`.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcc.dialects.codelet import Stream
from qcc.dialects.instruction_sets import ISAS

DIGITS = {"f32": 0, "int16": 2, "int8": 1}
"""Signed bytes that a quantized element of x is cut into."""


def planes(bits: int) -> tuple[int, ...]:
    """The bit-planes, from the lowest bits upward, that codes of `bits` bits (1 to 8) are stored as."""
    return tuple(p for p in (8, 4, 2, 1) if bits & p)


def plane_depth(bits: int) -> int:
    """How many codes fill whole 32-bit words in every plane."""
    return 32 // planes(bits)[-1]


def bytes_codes(bits: int) -> int:
    """Codes in a byte behind decoder "bitmap"."""
    return 8 // bits


MOST_IN_PLACE_ROWS = 4
"""Of x, whose sums of the upper codes of bytes have registers of their own; for more, decoder "bitmap" shifts these codes down."""
QUAD = 4
"""k of which decoder "quads" keeps a few."""
INDEXED_SLOTS = 4
"""Values of a channel in a step of decoder "indexed"."""
STREAM_WINDOW = 64
"""Columns that they lie in: as many bytes of x as one permute reaches. Also k of a step of decoder "quads"."""
INDEXED_RECORD_BYTES = 10
"""Of a step: 8 for which values there are, 2 for the first column."""
RELATIVE_WINDOW = 128
"""Columns that the values of a step of decoder "relative" lie in, from a multiple of 64 on: what a permute of two tables reaches."""
MOST_RELATIVE = 15
"""Columns from a value of decoder "relative" to the next, which 4 bits hold."""
SUMS_DEPTH = 32
"""k of a step of decoder "sums": a word has a bit for each. Where its lanes are bytes, a step is 8 k."""
SUMS_BYTES = 8
"""Of its tables per k: two bytes for each of the 16 subsets of 4 k."""
PRODUCTS_BYTES = 32
"""Of the tables of decoder "products" per k: two bytes for each of 16 levels."""

STREAM_APART = 1024
"""Bytes between the streams of the vectors of a block, so that streams of a power of two do not fall into the same sets of a cache."""
LEAST_APART = 1 << 16
"""Bytes of a stream from which they are kept apart: shorter ones are not read from memory for long enough to matter."""

MOST_SUMS = {32: 24, 16: 10}
"""Accumulators of products that fit so many registers beside words, masks and temporaries."""
GREATEST_X = 1 << 15
"""|x| quantized to 16 bits, and a bound for the sums of its products."""


def field_shifts(bits: int, fold: int) -> list[int]:
    """How far the sums of byte products of codes of `bits` bits have to be shifted down, one sum for each distinct distance.

    A field at bit `b` of a byte is used where it lies, or, from bit `fold` on, `fold` lower; the plane's lowest bit counts 2^weight.
    `fold` 0: fields are shifted down to their weight, one sum.
    """
    found, weight = {0} if not fold else set[int](), 0
    for p in planes(bits):
        found |= {b % fold - weight for b in range(0, 8, p)} if fold else set()
        weight += p
    return sorted(found)


def choose_fold(isa: str, bits: int, sums: int) -> int:
    """The greatest fold of 8, 4 and 0 for which `sums` sums (digits, rows, vectors), each for every distance, fit the registers."""
    most = MOST_SUMS[ISAS[isa].registers]
    return next(f for f in (8, 4, 0) if not f or len(field_shifts(bits, f)) * sums <= most)


def pairs_span(bits: int, fold: int, level: int) -> int:
    """k, in whole steps, whose products with x of 16 bits 32 bits can sum exactly: fields that share a sum, as they lie, and |level|s."""
    depth, weight, in_step = plane_depth(bits), 0, dict.fromkeys(field_shifts(bits, fold), 0)
    for p in planes(bits):
        for b in range(0, 8, p):
            where = b % fold if fold else weight
            in_step[where - weight] += depth * p // 8 * ((1 << p) - 1) << where
        weight += p
    return ((1 << 31) - 1) // (GREATEST_X * max(*in_step.values(), depth * level)) * depth


@dataclass(frozen=True)
class StreamLayout:
    """The layout behind a codelet of `lanes` lanes."""

    codelet: Stream

    @property
    def lanes(self) -> int:
        return self.codelet.lanes

    # --- weights --------------------------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """k of one step."""
        fixed = {"bytes": 4, "half": 4, "bitmap_f32": 4, "quads": STREAM_WINDOW}
        fixed |= {"sums": 8 if self.has_pairs else SUMS_DEPTH, "products": 2}
        fixed["bitmap"] = 4 * bytes_codes(self.codelet.bits)
        return fixed.get(self.codelet.decoder) or plane_depth(self.codelet.bits)

    @property
    def step_bytes(self) -> int:
        """Codes of one step of one vector."""
        if self.codelet.decoder in ("bitmap", "bitmap_f32"):
            return 4 * self.lanes // 8
        if self.codelet.decoder == "quads":  # values and two bits for each
            return self.depth // QUAD * self.codelet.kept * (self.codelet.bits + 2) * self.lanes // 8
        stored = {"bytes": 8, "half": 8}.get(self.codelet.decoder, self.codelet.bits)
        return self.depth * stored * self.lanes // 8

    @property
    def scale_bytes(self) -> int:
        return {"f32": 4, "bf16": 2, "e8m0": 1}[self.codelet.scale]

    @property
    def header_bytes(self) -> int:
        """Scales and zeros of one vector; for decoders "indexed" and "relative" scales and sums of values."""
        return self.lanes * (self.scale_bytes + (4 if self.codelet.zeros == "channel" or self.codelet.has_steps else 0))

    @property
    def is_split(self) -> bool:
        """Whether each vector of the blocks is a stream of its own, behind the headers of all, or blocks lie one behind the other."""
        return self.codelet.decoder not in ("bitmap", "bitmap_f32") and not self.codelet.has_steps

    def codes_bytes(self, count: int) -> int:
        """Codes of `count` k of one vector."""
        return -(-count // self.depth) * self.step_bytes

    @property
    def vector_bytes(self) -> int:
        """Codes of one vector of a block."""
        full, rest = divmod(self.codelet.sizes[2], self.codelet.group)
        return full * self.codes_bytes(self.codelet.group) + self.codes_bytes(rest)

    def group_bytes(self, count: int, vectors: int) -> int:
        """One group of `count` k of a block that is not split."""
        return vectors * (self.header_bytes + self.codes_bytes(count))

    def block_bytes(self, vectors: int) -> int:
        """A block, or what a block takes of the streams that it is split into, without what aligns them."""
        return vectors * (self.groups * self.header_bytes + self.vector_bytes)

    def headers_bytes(self, blocks: int, vectors: int) -> int:
        """Headers of split blocks [block][group], which lie in front of all codes."""
        return _round_up(blocks * self.groups * vectors * self.header_bytes, 64)

    def stream_bytes(self, blocks: int) -> int:
        """From the codes of one vector of split blocks [block][group][step] to those of the next; they do not share lines of a cache."""
        return blocks * self.vector_bytes + self._gap_bytes(blocks)

    def _gap_bytes(self, blocks: int) -> int:
        return STREAM_APART if blocks * self.vector_bytes >= LEAST_APART else 0

    def region_bytes(self, blocks: int, vectors: int) -> int:
        """All of so many split blocks."""
        return self.headers_bytes(blocks, vectors) + vectors * self.stream_bytes(blocks) - self._gap_bytes(blocks)

    # --- scratch --------------------------------------------------------------------------------------------------------------------

    @property
    def has_pairs(self) -> bool:
        """Whether x is one number of 16 bits, multiplied in pairs, where it is quantized."""
        return self.codelet.compute != "f32" and ISAS[self.codelet.isa].streams_pairs

    @property
    def digits(self) -> int:
        return 1 if self.has_pairs else DIGITS[self.codelet.compute]

    @property
    def spans(self) -> int:
        """Parts of a group whose sums are exact, each with a sum of x of its own."""
        return -(-min(self.codelet.group, self.codelet.sizes[2]) // self.codelet.span) if self.codelet.span else 1

    @property
    def places(self) -> int:
        """Sums of decoder "shuffle" for each row and vector: products of bytes of levels and of x by weight, the least ones left out."""
        return min(2, self.digits + self.codelet.level_digits - 1)

    @property
    def x_sums(self) -> int:
        """Words in scratch per group: of x, one for every digit or span, or what sums of places begin with."""
        fixed = {"sums": 2, "shuffle": self.places}
        return fixed.get(self.codelet.decoder) or max(1, self.spans if self.has_pairs else self.digits)

    @property
    def groups(self) -> int:
        return -(-self.codelet.sizes[2] // self.codelet.group)

    @property
    def digit_bytes(self) -> int:
        """One digit of a row of x: whole groups, and zeros behind the last k up to whole steps (and vectors that the writer stores)."""
        slack = STREAM_WINDOW if self.codelet.has_steps else 0  # a window may begin at the last k
        return (_round_up(self.codelet.sizes[2], 64) + slack) * (2 if self.has_pairs else 1)

    @property
    def x_bytes(self) -> int:
        """What codes are multiplied with: the digits of x, or tables of the sums of its subsets or of its products."""
        if self.table_bytes:
            return _round_up(self.codelet.sizes[2], SUMS_DEPTH) * self.table_bytes
        return self.digits * self.digit_bytes

    @property
    def table_bytes(self) -> int:
        """Of tables made of x, per k; 0 where codes are multiplied."""
        return {"sums": SUMS_BYTES, "products": PRODUCTS_BYTES}.get(self.codelet.decoder, 0)

    @property
    def row_bytes(self) -> int:
        """Digits, then per group the scale (of quantized x), then `x_sums` times the words per group."""
        return _round_up(self.x_bytes + 4 * self.groups * (1 + self.x_sums), 64)

    def scale_offset(self, group: int = 0) -> int:
        """Of the scales of x inside a row."""
        return self.x_bytes + 4 * group

    def sum_offset(self, digit: int = 0) -> int:
        """Of `x_sums` inside a row; for decoder "sums", 0 is that of x and 1 that of what was taken off the tables."""
        return self.x_bytes + 4 * self.groups * (1 + digit)

    @property
    def needs_scratch(self) -> bool:
        """Whether x is quantized, or summed up by groups, before the first weight."""
        return bool(self.digits) or (self.codelet.zeros != "none" and not self.codelet.has_panel)

    @property
    def scratch_bytes(self) -> int:
        c = self.codelet
        if c.has_panel:
            return 4 * c.sizes[2] * c.vectors * c.lanes
        return c.sizes[0] * self.row_bytes if self.needs_scratch else 0


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
