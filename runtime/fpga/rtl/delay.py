"""Values some cycles later."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal


def later(m: Module, value: Any, cycles: int = 1, *, reset: bool = False) -> Any:
    """`value` (a number or view) `cycles` cycles later; with `reset` it is 0 until then, which flags need and data do not."""
    for _ in range(cycles):
        follower = Signal(value.shape(), reset_less=not reset, name="later")
        m.d.sync += follower.eq(value)
        value = follower
    return value
