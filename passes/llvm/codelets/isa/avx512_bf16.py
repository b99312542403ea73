"""AVX-512 with VNNI, VBMI and BF16: vdpbf16ps for products of bfloat16 pairs; everything else is AVX-512 with VNNI and VBMI."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Address, Builder, Value
from qcc.passes.llvm.codelets.isa.avx512_vbmi import (
    FLOAT_TABLE_BITS,
    dot2_s16,
    dot4_u8s8,
    dot4_u8s8_at,
    fma_at,
    look_up_bytes,
    look_up_floats,
    look_up_lanes,
    multiply_add_u8,
    pack_bytes,
    permute_bytes,
    scale_by_power,
    shuffle_bytes,
    splat_words,
    to_integer,
)

__all__ = [
    "FLOAT_TABLE_BITS",
    "dot2_bf16",
    "dot2_bf16_at",
    "dot2_s16",
    "dot4_u8s8",
    "dot4_u8s8_at",
    "fma_at",
    "look_up_bytes",
    "look_up_floats",
    "look_up_lanes",
    "multiply_add_u8",
    "pack_bytes",
    "permute_bytes",
    "scale_by_power",
    "shuffle_bytes",
    "splat_words",
    "to_integer",
]


def dot2_bf16(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + x[2i] * w[2i] + x[2i+1] * w[2i+1]; acc 16xf32, x and w 32xbf16. Denormals are taken, and given, as zero."""
    return b.call("llvm.x86.avx512bf16.dpbf16ps.512", [acc, x, w], "16xf32")


def dot2_bf16_at(b: Builder, acc: Value, x: Value, w: Address) -> Value:
    """As dot2_bf16, w as that of dot4_u8s8_at."""
    return b.assembly(f"vdpbf16ps {w.bytes}($3), $2, $0", "=v,0,v,r", [acc, x, w.base], "16xf32")
