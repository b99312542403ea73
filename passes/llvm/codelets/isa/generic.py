"""Plain vectors of any LLVM target; compiled for x86-64-v3 by default."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Builder, Value, lanes_of


def to_integer(b: Builder, v: Value) -> Value:
    """f32 lanes to i32 in the current rounding mode (half to even); the value must fit."""
    lanes = lanes_of(v)
    return b.call(f"llvm.lrint.v{lanes}i32.v{lanes}f32", [v], f"{lanes}xi32")
