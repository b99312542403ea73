"""AMX: eight tiles of 16 rows of 64 bytes for products; everything else is AVX-512 with VNNI and VBMI.

Tiles are numbered by us, not allocated by LLVM, so that the order of loads and products is the one written down.
"""

from __future__ import annotations

from collections.abc import Mapping

from qcc.passes.llvm.codelets.builder import Address, Builder, Index
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

CONFIG_BYTES = 64
_PRODUCTS = {"tile_u8s8": "tdpbusd", "tile_bf16": "tdpbf16ps"}


def configure(b: Builder, memory: Address, shapes: Mapping[int, tuple[int, int]]) -> None:
    """Load the configuration tile -> (rows, bytes of a row), which is written to `memory` first. All tiles become 0."""
    data = bytearray(CONFIG_BYTES)
    data[0] = 1  # the palette
    for tile, (rows, row_bytes) in shapes.items():
        data[16 + 2 * tile], data[48 + tile] = row_bytes, rows
    for i in range(0, CONFIG_BYTES, 8):
        b.store(b.constant(int.from_bytes(data[i : i + 8], "little", signed=True), "i64"), memory + i)
    b.call("llvm.x86.ldtilecfg", [b.pointer(memory)], None)


def release(b: Builder) -> None:
    """Back to the initial state, so that the operating system has no tiles to save."""
    b.call("llvm.x86.tilerelease", [], None)


def zero(b: Builder, tile: int) -> None:
    b.call("llvm.x86.tilezero", [b.constant(tile, "i8")], None)


def load(b: Builder, tile: int, address: Address, stride_bytes: Index) -> None:
    """The tile's rows, `stride_bytes` apart."""
    b.call("llvm.x86.tileloadd64", [b.constant(tile, "i8"), b.pointer(address), b.index(stride_bytes)], None)


def store(b: Builder, tile: int, address: Address, stride_bytes: Index) -> None:
    b.call("llvm.x86.tilestored64", [b.constant(tile, "i8"), b.pointer(address), b.index(stride_bytes)], None)


def multiply_add(b: Builder, compute: str, acc: int, x: int, w: int) -> None:
    """acc += x * w of tiles: u8 rows of x in quadruples and s8, or bf16 pairs."""
    b.call(f"llvm.x86.{_PRODUCTS[compute]}", [b.constant(tile, "i8") for tile in (acc, x, w)], None)
