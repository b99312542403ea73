"""AVX-512 with VNNI: 32 registers of 16 lanes, vpdpbusd for u8 x s8."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Address, Builder, Value, kind_of, lanes_of
from qcc.passes.llvm.codelets.isa.avx512 import FLOAT_TABLE_BITS, look_up_floats, pack_bytes, splat_words
from qcc.passes.llvm.codelets.isa.generic import to_integer

__all__ = [
    "FLOAT_TABLE_BITS",
    "dot2_s16",
    "dot4_u8s8",
    "dot4_u8s8_at",
    "fma_at",
    "look_up_bytes",
    "look_up_floats",
    "multiply_add_u8",
    "pack_bytes",
    "scale_by_power",
    "shuffle_bytes",
    "splat_words",
    "to_integer",
]


def dot4_u8s8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + sum of the four products x[4i+j] * w[4i+j]; acc 16xi32, x 64 unsigned and w 64 signed bytes. Wraps, does not saturate."""
    return b.call("llvm.x86.avx512.vpdpbusd.512", [acc, x, w], "16xi32")


def dot4_u8s8_at(b: Builder, acc: Value, x: Value, w: Address) -> Value:
    """As dot4_u8s8, w in memory that nothing writes: written out, because LLVM would give it a register that the tile does not have."""
    return b.assembly(f"vpdpbusd {w.bytes}($3), $2, $0", "=v,0,v,r", [acc, x, w.base], "16xi32")


def fma_at(b: Builder, acc: Value, x: Value, w: Address) -> Value:
    """acc + x * w in f32 lanes, rounded once; w as that of dot4_u8s8_at."""
    return b.assembly(f"vfmadd231ps {w.bytes}($3), $2, $0", "=v,0,v,r", [acc, x, w.base], "16xf32")


def dot2_s16(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + x[2i] * w[2i] + x[2i+1] * w[2i+1]; acc 16xi32, x and w 32xi16. Wraps.

    Written out: where several follow on one accumulator LLVM would make vpmaddwd and vpaddd of the intrinsic, one instruction more.
    """
    return b.assembly("vpdpwssd $3, $2, $0", "=v,0,v,v", [acc, x, w], "16xi32")


def scale_by_power(b: Builder, p: Value, n: Value) -> Value:
    """p * 2^n, rounded once, for 4, 8 or a multiple of 16 f32 lanes and whole n: vscalefps."""
    lanes = lanes_of(p)
    if lanes > 16:
        parts = [[b.shuffle(v, v, list(range(i, i + 16))) for v in (p, n)] for i in range(0, lanes, 16)]
        return b.joined([scale_by_power(b, *part) for part in parts])
    every = b.constant((1 << lanes) - 1 if lanes > 4 else 255, f"i{max(lanes, 8)}")
    rounding = [b.constant(4, "i32")] if lanes == 16 else []  # the current mode
    return b.call(f"llvm.x86.avx512.mask.scalef.ps.{32 * lanes}", [p, n, p, every, *rounding], kind_of(p))


def multiply_add_u8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc + x * w in i32 lanes, x in 0..255 and w of 16 bits: one vpdpwssd, whose upper products are 0 because x has no upper half."""
    if lanes_of(acc) != 16:
        return b.binary("add", acc, b.binary("mul", x, w))
    halves = [b.op("llvm.bitcast", [v], "32xi16") for v in (x, w)]
    return b.call("llvm.x86.avx512.vpdpwssd.512", [acc, *halves], "16xi32")


def look_up_bytes(b: Builder, table: Address, index: Value) -> Value:
    """table[index] for i32 lanes of 0..255 and a table of 256 bytes, which stays in four registers as 64 words of four entries."""
    lanes = lanes_of(index)
    if lanes > 16:
        return b.joined([look_up_bytes(b, table, b.shuffle(index, index, list(range(i, i + 16)))) for i in range(0, lanes, 16)])
    if lanes < 16:
        index = b.shuffle(index, index, [min(i, lanes - 1) for i in range(16)])
    words = [b.load("16xi32", table + 64 * i, invariant=True) for i in range(4)]
    quarter = b.binary("lshr", index, b.like(2, index))  # vpermi2d uses the low 5 bits
    low, high = (b.call("llvm.x86.avx512.vpermi2var.d.512", [words[i], quarter, words[i + 1]], "16xi32") for i in (0, 2))
    word = b.select(b.compare("slt", index, b.like(128, index)), low, high)
    byte = b.binary("shl", b.binary("and", index, b.like(3, index)), b.like(3, index))
    found = b.binary("and", b.binary("lshr", word, byte), b.like(255, index))
    return b.shuffle(found, found, list(range(lanes))) if lanes < 16 else found


def shuffle_bytes(b: Builder, table: Value, index: Value) -> Value:
    """table[index] for 64 bytes below 16; the table of 16 is repeated four times."""
    return b.call("llvm.x86.avx512.pshuf.b.512", [table, index], "64xi8")
