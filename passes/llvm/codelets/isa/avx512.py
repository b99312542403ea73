"""AVX-512 without VNNI (x86-64-v4, Skylake-SP): 32 registers of 16 lanes, otherwise as AVX2."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Address, Builder, Value, lanes_of
from qcc.passes.llvm.codelets.isa.generic import to_integer

__all__ = ["FLOAT_TABLE_BITS", "dot2_s16", "look_up_floats", "multiply_add_u8", "pack_bytes", "pair_u8s8", "splat_words", "to_integer"]


def dot2_s16(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + x[2i] * w[2i] + x[2i+1] * w[2i+1]; acc 16xi32, x and w 32xi16. Wraps only where all four factors are -32768."""
    return b.binary("add", acc, b.call("llvm.x86.avx512.pmaddw.d.512", [x, w], "16xi32"))


def pair_u8s8(b: Builder, x: Value, w: Value) -> Value:
    """x[2i] * w[2i] + x[2i+1] * w[2i+1] as 32xi16, of 64 unsigned and 64 signed bytes; saturates, so the sums must be known to fit."""
    return b.call("llvm.x86.avx512.pmaddubs.w.512", [x, w], "32xi16")


def multiply_add_u8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc + x * w in i32 lanes, x in 0..255 and w of 16 bits: one vpmaddwd, whose upper products are 0 because x has no upper half."""
    if lanes_of(acc) != 16:
        return b.binary("add", acc, b.binary("mul", x, w))
    return dot2_s16(b, acc, *(b.op("llvm.bitcast", [v], "32xi16") for v in (x, w)))


def pack_bytes(b: Builder, values: list[Value], zero: Value, bounds: tuple[Value, Value] | None = None) -> Value:
    """min(max(v + zero, low), high) of four vectors of 16 i32 as 64 bytes, four lanes of each in turn; zero, low, high in 0..255.

    Without `bounds`, they are 0 and 255. Both packs saturate on the way, and what they change is outside of 0..255 anyway.
    """
    halves = [b.call("llvm.x86.avx512.packssdw.512", pair, "32xi16") for pair in (values[:2], values[2:])]
    offset = b.splat(b.cast("trunc", zero, "i16"), 32)
    packed = b.call("llvm.x86.avx512.packuswb.512", [b.call("llvm.sadd.sat.v32i16", [half, offset], "32xi16") for half in halves], "64xi8")
    if bounds is None:
        return packed
    least, most = (b.splat(b.cast("trunc", bound, "i8"), 64) for bound in bounds)
    return b.binary("intr.umin", b.binary("intr.umax", packed, least), most)


def splat_words(b: Builder, source: Address, count: int) -> list[Value]:
    """Each of two or four words, as f32, in all lanes: one load and as many shuffles, where loads are scarce. The load is written out,
    because LLVM would make a load of each."""
    load = {2: "vbroadcastsd", 4: "vbroadcastf32x4"}[count]
    words = b.assembly(f"{load} {source.bytes}($1), $0", "=v,r", [source.base], "16xf32")
    return [b.shuffle(words, words, [lane // count * count + i for lane in range(16)]) for i in range(count)]


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
