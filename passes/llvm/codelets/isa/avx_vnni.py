"""AVX2 with AVX-VNNI (Alder Lake and later client CPUs): 16 registers of 8 lanes, vpdpbusd for u8 x s8."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Builder, Value
from qcc.passes.llvm.codelets.isa.avx2 import multiply_add_u8, pack_bytes
from qcc.passes.llvm.codelets.isa.generic import to_integer

__all__ = ["dot4_u8s8", "multiply_add_u8", "pack_bytes", "to_integer"]


def dot4_u8s8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc[i] + sum of the four products x[4i+j] * w[4i+j]; acc 8xi32, x 32 unsigned and w 32 signed bytes. Wraps, does not saturate.

    LLVM knows the instruction of both extensions by one name and takes the VEX encoding where there is no AVX-512.
    """
    return b.call("llvm.x86.avx512.vpdpbusd.256", [acc, x, w], "8xi32")
