"""Reading and writing strided operands as vectors, and scalars from the params buffer."""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects.codelet import ELEMENT_BYTES, Operand
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, lanes_of

STORAGE = {"u8": "i8", "s8": "i8", "u16": "i16", "s16": "i16", "i1": "i8", "i32": "i32", "i64": "i64", "f32": "f32", "bf16": "bf16"}
_WIDEN = {"u8": "zext", "s8": "sext", "u16": "zext", "s16": "sext", "i1": "zext"}


def bytes_of(operand: Operand, indices: Sequence[Index], b: Builder) -> Index:
    """Byte offset of the element at `indices` from the start of the buffer."""
    size = ELEMENT_BYTES[operand.element]
    return b.add(b.dot(indices, [s * size for s in operand.strides]), operand.offset * size)


def load(b: Builder, element: str, address: Address, stride: int, lanes: int, *, invariant: bool = False) -> Value:
    """`lanes` elements `stride` apart as i32 (narrow integers), i64 or f32 lanes."""
    storage, size = STORAGE[element], ELEMENT_BYTES[element]
    if stride == 0:
        vector = b.splat(_widen(b, element, b.load(storage, address)), lanes)
        return vector
    if stride == 1:
        return _widen(b, element, b.load(f"{lanes}x{storage}", address, invariant=invariant))
    vector = b.op("llvm.mlir.poison", [], f"{lanes}x{storage}")
    for lane in range(lanes):
        vector = b.insert(vector, b.load(storage, address + lane * stride * size), lane)
    return _widen(b, element, vector)


def load_first(b: Builder, address: Address, count: int, lanes: int) -> Value:
    """`count` f32 and no byte behind them, followed by zeros up to `lanes`."""
    if count == lanes:
        return b.load(f"{lanes}xf32", address)
    vector = b.constant(0.0, f"{lanes}xf32")
    for first, size in pieces(count, lanes):
        part = b.load(f"{size}xf32", address + 4 * first)
        wide = b.shuffle(part, part, [min(i, size - 1) for i in range(lanes)])
        vector = b.shuffle(vector, wide, [lanes + i - first if first <= i < first + size else i for i in range(lanes)])
    return vector


def store(b: Builder, element: str, address: Address, stride: int, value: Value) -> None:
    """Store i32, i64 or f32 lanes as `element`s `stride` apart; integers are cut to their low bits, f32 is rounded to bf16."""
    if element in _WIDEN:
        value = b.cast("trunc", value, STORAGE[element])
    elif element == "bf16":
        value = b.cast("fptrunc", value, "bf16")
    if stride == 1:
        b.store(value, address)
        return
    for lane in range(lanes_of(value)):
        b.store(b.extract(value, lane), address + lane * stride * ELEMENT_BYTES[element])


def _widen(b: Builder, element: str, value: Value) -> Value:
    if element == "bf16":
        return b.cast("fpext", value, "f32")
    return b.cast(_WIDEN[element], value, "i32") if element in _WIDEN else value


def pieces(lanes: int, width: int) -> list[tuple[int, int]]:
    """(start, count) of vectors of `width` and then of falling powers of two that cover `lanes` lanes exactly."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < lanes:
        count = width
        while count > lanes - start:
            count //= 2
        found.append((start, count))
        start += count
    return found
