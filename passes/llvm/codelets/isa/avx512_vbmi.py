"""AVX-512 with VNNI and VBMI: byte permutes over two registers, so tables of 256 bytes are looked up 64 bytes at a time."""

from __future__ import annotations

from collections.abc import Sequence

from qcc.passes.llvm.codelets.builder import Builder, Value
from qcc.passes.llvm.codelets.isa.avx512_vnni import (
    FLOAT_TABLE_BITS,
    dot2_s16,
    dot4_u8s8,
    dot4_u8s8_at,
    fma_at,
    look_up_bytes,
    look_up_floats,
    multiply_add_u8,
    pack_bytes,
    scale_by_power,
    shuffle_bytes,
    splat_words,
    to_integer,
)

__all__ = [
    "FLOAT_TABLE_BITS",
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


def look_up_lanes(b: Builder, table: Sequence[Value], index: Value) -> Value:
    """table[index] for 64 bytes; the table is four vectors of 64 bytes. vpermi2b uses the low 7 bits of an index."""
    low, high = (b.call("llvm.x86.avx512.vpermi2var.qi.512", [table[i], index, table[i + 1]], "64xi8") for i in (0, 2))
    return b.select(b.compare("slt", index, b.like(0, index)), high, low)


def permute_bytes(b: Builder, table: Value, index: Value, upper: Value | None = None) -> Value:
    """table[index] for 64 bytes and a table of 64 bytes, or of 128 with `upper`; bits of an index that reach beyond are ignored."""
    if upper is not None:
        return b.call("llvm.x86.avx512.vpermi2var.qi.512", [table, index, upper], "64xi8")
    return b.call("llvm.x86.avx512.permvar.qi.512", [table, index], "64xi8")
