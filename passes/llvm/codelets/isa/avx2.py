"""AVX2: 16 registers of 8 lanes, vpmaddwd for pairs of s16, vpmaddubsw for pairs of u8 x s8 that are proven to fit 16 bits."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Builder, Value, lanes_of
from qcc.passes.llvm.codelets.isa.generic import to_integer

__all__ = ["dot2_s16", "multiply_add_u8", "pack_bytes", "pair_u8s8", "shuffle_bytes", "to_integer"]


def dot2_s16(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + x[2i] * w[2i] + x[2i+1] * w[2i+1]; acc 8xi32, x and w 16xi16. Wraps only where all four factors are -32768.

    The addition is written out: LLVM would add the products of several steps first, which needs more registers than there are.
    """
    product = b.call("llvm.x86.avx2.pmadd.wd", [x, w], "8xi32")
    return b.assembly("vpaddd $1, $2, $0", "=x,x,x", [product, acc], "8xi32")


def pair_u8s8(b: Builder, x: Value, w: Value) -> Value:
    """x[2i] * w[2i] + x[2i+1] * w[2i+1] as 16xi16, of 32 unsigned and 32 signed bytes; saturates, so the sums must be known to fit."""
    return b.call("llvm.x86.avx2.pmadd.ub.sw", [x, w], "16xi16")


def multiply_add_u8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc + x * w in i32 lanes, x in 0..255 and w of 16 bits: one vpmaddwd, whose upper products are 0 because x has no upper half."""
    if lanes_of(acc) != 8:
        return b.binary("add", acc, b.binary("mul", x, w))
    return dot2_s16(b, acc, *(b.op("llvm.bitcast", [v], "16xi16") for v in (x, w)))


def pack_bytes(b: Builder, values: list[Value], zero: Value, bounds: tuple[Value, Value] | None = None) -> Value:
    """min(max(v + zero, low), high) of four vectors of 8 i32 as 32 bytes, four lanes of each in turn; zero, low, high in 0..255.

    Without `bounds`, they are 0 and 255. Both packs saturate on the way, and what they change is outside of 0..255 anyway.
    """
    halves = [b.call("llvm.x86.avx2.packssdw", pair, "16xi16") for pair in (values[:2], values[2:])]
    offset = b.splat(b.cast("trunc", zero, "i16"), 16)
    packed = b.call("llvm.x86.avx2.packuswb", [b.call("llvm.sadd.sat.v16i16", [half, offset], "16xi16") for half in halves], "32xi8")
    if bounds is None:
        return packed
    least, most = (b.splat(b.cast("trunc", bound, "i8"), 32) for bound in bounds)
    return b.binary("intr.umin", b.binary("intr.umax", packed, least), most)


def shuffle_bytes(b: Builder, table: Value, index: Value) -> Value:
    """Bytes of the 16 in each half of `table`, 32xi8, that the low 4 bits of `index` name; 0 where its sign bit is set."""
    return b.call("llvm.x86.avx2.pshuf.b", [table, index], "32xi8")
