"""A part of the model that runs slice by slice over the batch: its calls, and where slices lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.mlir import op_attribute, walk
from qcc.passes.tile.codelets.place import Place
from qcc.passes.values import shape_of


@dataclass
class Slices:
    """The part being lowered. `count` is the number of slices, 1 outside of parts; `bytes_of` says by how much the buffers of values that
    enter or leave the part advance from slice to slice; `wholes` has the value of all slices for that of one."""

    group: int = -1
    count: int = 1
    bytes_of: dict[Any, int] = field(default_factory=dict)
    wholes: dict[Any, Any] = field(default_factory=dict)

    def first(self, place: Place) -> Place:
        """The first slice of a value of all slices at `place`; calls advance it by themselves."""
        images = place.shape[0] // self.count
        self.bytes_of[place.buffer] = images * place.strides[0] * ELEMENT_BYTES[place.element]
        return replace(place, shape=(images, *place.shape[1:]))

    def attributes(self, buffers: Sequence[Any]) -> dict[str, Any]:
        """What a call of the part carries (`qtile.for_each_slice`)."""
        if self.count == 1:
            return {}
        strides = [self.bytes_of.get(buffer, 0) for buffer in buffers]
        return {"qtile.group": self.group, "qtile.slices": self.count, "qtile.slice_bytes": strides}


def for_each_slice(lowering: Any, op: Any, lower_block: Callable[[Any], None]) -> None:
    """Lower `qtile.for_each_slice`; `lower_block` lowers the operations of its function."""
    from qcc.passes.tile.codelets import elementwise

    name = op_attribute(op, "callee")
    function = next(f for f in walk(lowering.module, "func.func") if op_attribute(f, "sym_name") == name)
    block = function.regions[0].blocks[0]
    source, slices = lowering.place(op.operands[0], narrow=True), lowering.slices
    slices.count, slices.group = op_attribute(op, "count"), slices.group + 1
    if not _one_after_the_other(source, slices.count):
        slices.count, count = 1, slices.count
        copied = lowering.temporary(source.element, source.shape)
        elementwise.copy(lowering, source, copied)
        source, slices.count = copied, count
    copies = lowering.widened, lowering.signs  # of whole values, where the part needs those of slices, and the other way round
    lowering.widened, lowering.signs = {}, {}
    lowering.places[block.arguments[0]] = slices.first(source)
    inner = list(block.operations)[-1].operands[0]
    slices.wholes[inner] = op.results[0]
    lower_block(block)
    if op.results[0] not in lowering.places:  # a view, or a value of which only a copy was wanted
        held = lowering.place(inner)
        elementwise.copy(lowering, held, lowering.result(inner), halo_word=lowering.halo_word(inner))
    lowering.widened, lowering.signs = copies
    slices.count = 1
    slices.bytes_of.clear()
    function.erase()


def _one_after_the_other(place: Place, count: int) -> bool:
    """Whether the slices of `place` lie behind each other, the first one from the start of the buffer."""
    stride = place.strides[0] * (place.shape[0] // count)
    image = sum((n - 1) * s for n, s in zip(place.shape[1:], place.strides[1:], strict=True))
    return place.offset + (place.shape[0] // count - 1) * place.strides[0] + image < stride


def whole_shape(slices: Slices, value: Any) -> list[int]:
    """The shape to allocate for `value`: that of all slices where it leaves the part."""
    return shape_of(slices.wholes.get(value, value))
