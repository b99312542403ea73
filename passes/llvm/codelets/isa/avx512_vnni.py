"""AVX-512 with VNNI: 32 registers of 16 lanes, vpdpbusd for u8 x s8."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Address, Builder, Value, lanes_of
from qcc.passes.llvm.codelets.isa.generic import to_integer

__all__ = [
    "FLOAT_TABLE_BITS",
    "dot2_s16",
    "dot4_u8s8",
    "look_up_bytes",
    "look_up_floats",
    "multiply_add_u8",
    "pack_bytes",
    "shuffle_bytes",
    "to_integer",
]


def dot4_u8s8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + sum of the four products x[4i+j] * w[4i+j]; acc 16xi32, x 64 unsigned and w 64 signed bytes. Wraps, does not saturate."""
    return b.call("llvm.x86.avx512.vpdpbusd.512", [acc, x, w], "16xi32")


def dot2_s16(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + x[2i] * w[2i] + x[2i+1] * w[2i+1]; acc 16xi32, x and w 32xi16. Wraps."""
    return b.call("llvm.x86.avx512.vpdpwssd.512", [acc, x, w], "16xi32")


def multiply_add_u8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc + x * w in i32 lanes, x in 0..255 and w of 16 bits: one vpdpwssd, whose upper products are 0 because x has no upper half."""
    if lanes_of(acc) != 16:
        return b.binary("add", acc, b.binary("mul", x, w))
    halves = [b.op("llvm.bitcast", [v], "32xi16") for v in (x, w)]
    return b.call("llvm.x86.avx512.vpdpwssd.512", [acc, *halves], "16xi32")


def look_up_bytes(b: Builder, table: Address, index: Value) -> Value:
    """table[index] for i32 lanes of 0..255 and a table of 256 bytes, which stays in four registers as 64 words of four entries."""
    lanes = lanes_of(index)
    if lanes < 16:
        index = b.shuffle(index, index, [min(i, lanes - 1) for i in range(16)])
    words = [b.load("16xi32", table + 64 * i, invariant=True) for i in range(4)]
    quarter = b.binary("lshr", index, b.like(2, index))  # vpermi2d uses the low 5 bits
    low, high = (b.call("llvm.x86.avx512.vpermi2var.d.512", [words[i], quarter, words[i + 1]], "16xi32") for i in (0, 2))
    word = b.select(b.compare("slt", index, b.like(128, index)), low, high)
    byte = b.binary("shl", b.binary("and", index, b.like(3, index)), b.like(3, index))
    found = b.binary("and", b.binary("lshr", word, byte), b.like(255, index))
    return b.shuffle(found, found, list(range(lanes))) if lanes < 16 else found


def pack_bytes(b: Builder, values: list[Value], zero: Value, bounds: tuple[Value, Value] | None = None) -> Value:
    """min(max(v + zero, low), high) of four vectors of 16 i32 as 64 bytes, four lanes of each in turn; zero, low, high in 0..255.

    Without `bounds`, they are 0 and 255.

    Both packs saturate on the way, and what they change is outside of 0..255 anyway.
    """
    halves = [b.call("llvm.x86.avx512.packssdw.512", pair, "32xi16") for pair in (values[:2], values[2:])]
    offset = b.splat(b.cast("trunc", zero, "i16"), 32)
    moved = [b.call("llvm.sadd.sat.v32i16", [half, offset], "32xi16") for half in halves]
    packed = b.call("llvm.x86.avx512.packuswb.512", moved, "64xi8")
    if bounds is None:
        return packed
    least, most = (b.splat(b.cast("trunc", bound, "i8"), 64) for bound in bounds)
    return b.binary("intr.umin", b.binary("intr.umax", packed, least), most)


def shuffle_bytes(b: Builder, table: Value, index: Value) -> Value:
    """table[index] for 64 bytes below 16; the table of 16 is repeated four times."""
    return b.call("llvm.x86.avx512.pshuf.b.512", [table, index], "64xi8")


FLOAT_TABLE_BITS = 6


def look_up_floats(b: Builder, table: list[Value], index: Value) -> Value:
    """table[index] for i32 lanes and a table of 16, 32 or 64 floats in 1, 2 or 4 registers; bits above the table's are ignored."""
    if len(table) == 1:
        return b.call("llvm.x86.avx512.permvar.sf.512", [table[0], index], "16xf32")
    low = b.call("llvm.x86.avx512.vpermi2var.ps.512", [table[0], index, table[1]], "16xf32")
    if len(table) == 2:
        return low
    high = b.call("llvm.x86.avx512.vpermi2var.ps.512", [table[2], index, table[3]], "16xf32")
    upper = b.compare("ne", b.binary("and", index, b.like(32, index)), b.like(0, index))
    return b.select(upper, high, low)
