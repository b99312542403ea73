"""What lies in front of a group's codes in a streamed linear layer: scales of all vectors, then zeros (or sums of values) of all."""

from __future__ import annotations

from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets.builder import Address, Builder, Value


def scale(b: Builder, layout: StreamLayout, address: Address, v: int) -> Value:
    """The f32 scales of vector `v` of the group at `address`."""
    place = address + layout.scale_bytes * layout.lanes * v
    if layout.codelet.scale == "f32":
        return b.load(f"{layout.lanes}xf32", place)
    bits, below = (16, 16) if layout.codelet.scale == "bf16" else (8, 23)  # of a float: its upper half, or its exponent
    upper = b.cast("zext", b.load(f"{layout.lanes}xi{bits}", place), "i32")
    return b.op("llvm.bitcast", [b.binary("shl", upper, b.like(below, upper))], f"{layout.lanes}xf32")


def zero(b: Builder, layout: StreamLayout, address: Address, vectors: int, v: int, element: str) -> Value:
    """The zeros of vector `v` of `vectors`, `element` i32 or f32."""
    return b.load(f"{layout.lanes}x{element}", address + layout.lanes * (layout.scale_bytes * vectors + 4 * v))


def zero_taken_off(b: Builder, layout: StreamLayout, address: Address, vectors: int, v: int, element: str) -> Value | None:
    """What is to be taken off the levels of vector `v`: zeros of the header, the same for all, or None."""
    match layout.codelet.zeros:
        case "constant":
            return b.constant(layout.codelet.zero, f"{layout.lanes}x{element}")
        case "channel":
            return zero(b, layout, address, vectors, v, element)
        case _:
            return None
