"""AVX-512 with VNNI: 32 registers of 16 lanes, vpdpbusd for u8 x s8."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Builder, Value
from qcc.passes.llvm.codelets.isa.generic import to_integer

__all__ = ["dot4_u8s8", "to_integer"]


def dot4_u8s8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + sum of the four products x[4i+j] * w[4i+j]; acc 16xi32, x 64 unsigned and w 64 signed bytes. Wraps, does not saturate."""
    return b.call("llvm.x86.avx512.vpdpbusd.512", [acc, x, w], "16xi32")
