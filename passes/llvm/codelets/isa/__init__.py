"""Instruction sets: one module each, named like it, with the instructions that plain LLVM operations do not reach.

A module has `to_integer(b, v)`: f32 lanes to i32, half to even; `multiply_add_u8(b, acc, x, w)`;
where `dialects.instruction_sets.ISAS` says so, `dot4_u8s8(b, acc, x, w)` (dot4), `dot2_s16(b, acc, x, w)` and `pair_u8s8(b, x, w)` (pairs),
`look_up_bytes(b, table, index)` (byte_tables) and for vectors of 64 bytes `look_up_lanes(b, table, index)` (byte_lanes); and, if it can,
`pack_bytes(b, values, zero, bounds)` and `scale_by_power(b, p, n)`.
"""

from __future__ import annotations

import importlib
from typing import Any


def isa(name: str) -> Any:
    """The module of instruction set `name`."""
    return importlib.import_module(f"qcc.passes.llvm.codelets.isa.{name}")
