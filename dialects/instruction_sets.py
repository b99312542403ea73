"""The instruction sets that codelets are written for, best first. `compiler/targets/cpu.py` says which CPU has which, and
`passes/llvm/codelets/isa/` has a module of instructions for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    asks_ahead: bool = True  # streams are read faster with software prefetch
    gathers: bool = True  # a gather is quicker than a load for every lane
    dot2_bf16: bool = False  # has bf16 x bf16 products of depth 2, summed in f32
    tiles: bool = False  # has a matrix unit
    from_memory: frozenset[tuple[str, str]] = frozenset()  # products that can take weights where they lie: (`compute`, element of w)

    @property
    def bf16_products(self) -> bool:
        """Whether products read x in bf16."""
        return self.tiles or self.dot2_bf16

    @property
    def streams_pairs(self) -> bool:
        """Whether weight-only layers multiply x and codes of 16 bits in pairs, for want of products of four bytes."""
        return self.dot2 and not self.dot4 and self.lanes == 8


_WEIGHTS_IN_MEMORY = frozenset({("dot4_u8s8", "s8"), ("lane_f32", "f32")})

_VBMI = IsaFacts(16, 32, dot4=True, dot2=True, byte_tables=True, byte_lanes=True, from_memory=_WEIGHTS_IN_MEMORY)

ISAS: dict[str, IsaFacts] = {
    "amx": replace(_VBMI, tiles=True),
    "avx512_bf16": replace(
        _VBMI, asks_ahead=False, gathers=False, dot2_bf16=True, from_memory=_WEIGHTS_IN_MEMORY | {("dot2_bf16", "bf16")}
    ),
    "avx512_vbmi": _VBMI,
    "avx512_vnni": IsaFacts(16, 32, dot4=True, dot2=True, byte_tables=True, from_memory=_WEIGHTS_IN_MEMORY),
    "avx512": IsaFacts(16, 32, dot2=True, pairs=True),
    "avx_vnni": IsaFacts(8, 16, dot4=True),
    "avx2": IsaFacts(8, 16, dot2=True, pairs=True),
    "generic": IsaFacts(8, 16),
}


def weights_in_memory(isa: str, compute: str, element: str, pixels: int, vectors: int) -> int:
    """How many of a step's `vectors` of weights a register tile reads where they lie, for each pixel anew; 0 if all have a register.

    Two in a tile of 7 x 4, which leaves one register free: it divides the usual widths of images and has few instructions beside products.
    """
    facts = ISAS[isa]
    fits = pixels * vectors + vectors + 1 == facts.registers + 1
    return 2 if fits and vectors > 2 and (compute, element) in facts.from_memory else 0
