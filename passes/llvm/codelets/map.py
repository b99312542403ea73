"""The loop nest of everything element by element: quantize, dequantize, add, look-up, copies, transposes, float functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Map
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import STORAGE, bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.steps import Steps

LANES = 16  # also where registers have 8: LLVM splits, and the tail is found at compile time


def emit(b: Builder, codelet: Map, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    halo.fill_once(b, c, buffers, task)
    copies = not c.steps and STORAGE[c.operands[0].element] == STORAGE[c.y.element]
    lanes = 64 // ELEMENT_BYTES[c.y.element] if copies else LANES
    fetch = Fetch(b, c.operands, buffers, c.params, instructions)
    steps = Steps(b, instructions)
    low = b.mul(task, c.chunk)
    high = b.minimum(b.add(low, c.chunk), c.sizes[c.split])
    last = len(c.sizes) - 1

    def vector(place: tuple[Index, ...], count: int) -> None:
        fetch.cache = {}
        fetch.place = lambda number: b.at(buffers[c.operands[number].buffer], bytes_of(c.operands[number], place, b))
        address = b.at(buffers[c.y.buffer], bytes_of(c.y, place, b))
        if copies:
            raw = {"u8": "s8"}.get(c.y.element, c.y.element)
            value = _raw(b, raw, fetch.place(0), c.operands[0].strides[-1], count)
            _store_raw(b, raw, address, c.y.strides[-1], value)
            return
        first = c.operands[0]
        value = load(b, first.element, fetch.place(0), first.strides[-1], count)
        store(b, c.y.element, address, c.y.strides[-1], steps.run(c.steps, value, fetch))

    def innermost(place: tuple[Index, ...]) -> None:
        size = c.sizes[last]
        whole = size // lanes * lanes
        start, end = (low, b.minimum(high, whole)) if c.split == last else (0, whole)
        b.loop(start, end, lanes, lambda i: vector((*place, i), lanes))

        def tail() -> None:
            for first, count in pieces(size - whole, lanes):
                vector((*place, whole + first), count)

        if whole < size:
            b.when(b.equal(high, size) if c.split == last else True, tail)

    def nest(dimension: int, place: tuple[Index, ...]) -> None:
        if dimension == last:
            innermost(place)
            return
        start, end = (low, high) if dimension == c.split else (0, c.sizes[dimension])
        b.loop(start, end, 1, lambda i: nest(dimension + 1, (*place, i)))

    nest(0, ())


def _raw(b: Builder, element: str, address: Any, stride: int, lanes: int) -> Value:
    """`lanes` elements as they are stored."""
    storage, size = STORAGE[element], ELEMENT_BYTES[element]
    if stride == 0:
        return b.splat(b.load(storage, address), lanes)
    if stride == 1:
        return b.load(f"{lanes}x{storage}", address)
    vector = b.op("llvm.mlir.poison", [], f"{lanes}x{storage}")
    for lane in range(lanes):
        vector = b.insert(vector, b.load(storage, address + lane * stride * size), lane)
    return vector


def _store_raw(b: Builder, element: str, address: Any, stride: int, value: Value) -> None:
    if stride == 1:
        b.store(value, address)
        return
    for lane in range(_lanes(value)):
        b.store(b.extract(value, lane), address + lane * stride * ELEMENT_BYTES[element])


def _lanes(value: Value) -> int:
    return value.type.shape[0]
