"""Plain vectors of any LLVM target; compiled for x86-64-v3 by default."""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Builder, Value, lanes_of


def to_integer(b: Builder, v: Value) -> Value:
    """f32 lanes to i32 in the current rounding mode (half to even); the value must fit."""
    lanes = lanes_of(v)
    return b.call(f"llvm.lrint.v{lanes}i32.v{lanes}f32", [v], f"{lanes}xi32")


def multiply_add_u8(b: Builder, acc: Value, x: Value, w: Value) -> Value:
    """acc + x * w in i32 lanes, x in 0..255 and w of 16 bits."""
    return b.binary("add", acc, b.binary("mul", x, w))
