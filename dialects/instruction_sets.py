"""The instruction sets that codelets are written for, best first. `compiler/targets/cpu.py` says which CPU has which, and
`passes/llvm/codelets/isa/` has a module of instructions for each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IsaFacts:
    """What choosing a register tile and packing weights needs to know of an instruction set."""

    lanes: int  # 32-bit lanes of a vector
    registers: int
    dot4: bool = False  # has u8 x s8 products of depth 4
    dot2: bool = False  # has s16 x s16 products of depth 2 that wrap
    pairs: bool = False  # has u8 x s8 products of depth 2 whose sum saturates at 16 bits, and no dot4
    byte_tables: bool = False  # looks up 256 bytes in registers
    byte_lanes: bool = False  # looks up 256 bytes for 64 bytes at once
    tiles: bool = False  # has a matrix unit


ISAS: dict[str, IsaFacts] = {
    "amx": IsaFacts(16, 32, dot4=True, dot2=True, byte_tables=True, byte_lanes=True, tiles=True),
    "avx512_vbmi": IsaFacts(16, 32, dot4=True, dot2=True, byte_tables=True, byte_lanes=True),
    "avx512_vnni": IsaFacts(16, 32, dot4=True, dot2=True, byte_tables=True),
    "avx512": IsaFacts(16, 32, dot2=True, pairs=True),
    "avx_vnni": IsaFacts(8, 16, dot4=True),
    "avx2": IsaFacts(8, 16, dot2=True, pairs=True),
    "generic": IsaFacts(8, 16),
}
