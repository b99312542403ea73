"""The tiled form under construction: buffers, codelet declarations and calls, and where every value of the source function lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from qcc.dialects import codelet as configuration
from qcc.dialects import element_types, weights
from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, error_at, ir, layer_name, op_attribute, to_attribute
from qcc.dialects.pixel_units import PixelUnits
from qcc.dialects.weight_recipes import Recipe
from qcc.passes.tile.codelets.place import (
    MOVED_AS,
    SLACK_BYTES,
    Place,
    element_name,
    memref_type,
    row_major,
    span_bytes,
    stored_offset,
)
from qcc.passes.tile.codelets.slices import Slices, whole_shape
from qcc.passes.values import VIEWS, constant_array, producer, shape_of, users

_DTYPES = {
    "u8": np.uint8,
    "s8": np.int8,
    "u16": np.uint16,
    "s16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "f32": np.float32,
    "bf16": np.int16,
    "i1": np.uint8,
}


class Lowering:
    """One source function on its way to the tiled form.

    Buffers go to the top of the new function's block and calls behind them. `current` is the operation being lowered, for names, locations
    and errors.
    """

    def __init__(self, module: Any, source: Any, options: Any) -> None:
        """`options`: `lower_to_codelets.IsaOptions`."""
        self.module, self.isa, self.activations, self.coded = module, options.isa, options.activations, options.coded
        self.byte_expand, self.popcount, self.storage = options.byte_expand, options.popcount, options.storage
        self.streamed = options.streamed
        self.places: dict[Any, Place] = {}
        self.folded: dict[Any, np.ndarray] = {}  # results computed here: the real values of constants
        self.stored: dict[Any, tuple[np.ndarray, Any]] = {}  # the stored elements of those, and their type
        self.dynamic: dict[Any, Any] = {}  # values quantized while running: see `codelets/dynamic.py`
        self.compressed: dict[Any, Any] = {}  # real values of constants that stay codes: `weight_codes.Codes`
        self.facts: list[tuple[str, dict[str, Any]]] = []  # of layers, for the report
        self.widened: dict[Any, Any] = {}  # buffers of bytes -> the same elements in 16 bits
        self.slices = Slices()
        self.signs: dict[Any, Place] = {}  # (buffer, layout) of bytes -> their sign words
        self.states: dict[str, tuple[Place, ir.Type]] = {}  # where each lies, and what it is
        self.outputs: dict[Any, int] = {}  # values that are returned and have no other reader: the number of the result
        self.current: Any = source
        self._declared: dict[tuple[str, tuple[str, ...]], str] = {}
        self._numbers: dict[Any, int] = {}  # of the operations lowered so far
        self._weights: dict[tuple[str, bytes], Any] = {}
        self._buffers: list[Any] = []
        attributes = {"sym_name": op_attribute(source, "sym_name"), "function_type": ir.FunctionType.get([], [])}
        self.function = _function(attributes, source.location, ir.InsertionPoint(source))
        self.block = self.function.regions[0].blocks.append()
        with ir.InsertionPoint(self.block):
            self._return = ir.Operation.create("func.return", loc=source.location)

    # --- buffers --------------------------------------------------------------------------------------------------------------------

    def buffer(self, place: Place, space: str, size_bytes: int, **attributes: Any) -> Place:
        """`place` with a new `qtile.buffer` of `size_bytes` behind it."""
        given = {"space": space, "offset_bytes": 0, "size_bytes": size_bytes, **attributes}
        ip = ir.InsertionPoint.at_block_begin(self.block)
        if self._buffers:
            ip = ir.InsertionPoint.after(self._buffers[-1])
        made = create("qtile.buffer", [], [memref_type(place)], given, loc=self.current.location, ip=ip)
        self._buffers.append(made)
        return replace(place, buffer=made.results[0])

    def temporary(self, element: str, shape: Sequence[int], space: str = "arena") -> Place:
        """A row-major buffer in the arena (or in scratch space)."""
        place = Place(None, element, tuple(shape), tuple(row_major(shape)))
        return self.buffer(place, space, span_bytes(place) + SLACK_BYTES, name=layer_name(self.current.location) or None)

    def result(self, value: Any) -> Place:
        """A place for `value`, laid out as assign-layout says, and recorded as where it lies: the caller's memory where that holds the
        same, row-major f32."""
        op = producer(value)
        element = element_name(value.type)
        if element is None:
            raise error_at(op, f"'{op.name}' gives elements of {ir.RankedTensorType(value.type).element_type}, which no codelet stores")
        if configuration.ISAS[self.isa].bf16_products and _is_factor_in_bf16(value, computed=configuration.ISAS[self.isa].dot2_bf16):
            element = "bf16"
        shape = whole_shape(self.slices, value)
        channels_last = op_attribute(op, "qtile.layout") == "channels_last" and len(shape) == 4
        if value in self.outputs and element == "f32" and not channels_last:
            self.places[value] = self.interface(value, "output", self.outputs[value])
            return self.places[value]
        if channels_last:
            place = self.image(element, shape, op_attribute(op, "qtile.halo", [0, 0, 0, 0]))
        else:
            place = self.temporary(element, shape)
        if value in self.slices.wholes:
            self.places[self.slices.wholes[value]] = place
            place = self.slices.first(place)
        self.places[value] = place
        return place

    def interface(self, held: Any, space: str, index: int, **attributes: Any) -> Place:
        """The memory of an input, output or state: row-major, in the model's own container."""
        element, shape = element_name(held.type, native=True), shape_of(held)
        if element is None:
            expected = "expected integers, i1, f32 or affine quantized elements"
            raise QccError(f"{space} {index} is {held.type}, which has no container; {expected}")
        place = Place(None, element, tuple(shape), tuple(row_major(shape)))
        slack = SLACK_BYTES if space == "state" else 0  # behind the caller's memory there is none
        return self.buffer(place, space, span_bytes(place) + slack, index=index, **attributes)

    def image(self, element: str, shape: Sequence[int], halo: Sequence[int] = (0, 0, 0, 0)) -> Place:
        """A channels-last buffer for [n, c, h, w] with a border."""
        n, c, h, w = shape
        top, left, bottom, right = halo
        rows, columns = top + h + bottom, left + w + right
        strides = (rows * columns * c, 1, columns * c, c)
        place = Place(None, element, tuple(shape), strides, (top * columns + left) * c, (top, left, bottom, right))
        size = n * rows * columns * c * ELEMENT_BYTES[element]
        return self.buffer(place, "arena", size + SLACK_BYTES, name=layer_name(self.current.location) or None)

    def weights(self, array: np.ndarray, element: str, recipe: Recipe | None = None) -> Place:
        """Constant bytes as a row-major buffer; equal arrays share one. `recipe` makes them of fewer bytes."""
        array = np.ascontiguousarray(array, _DTYPES[element])
        key = (f"{element}{array.shape}", hashlib.sha256(array.tobytes()).digest())
        place = Place(None, element, array.shape, tuple(row_major(array.shape)))
        if key not in self._weights:
            stored = weights.constant_attribute(
                array.view(np.int8 if array.itemsize == 1 else array.dtype), layer_name(self.current.location)
            )
            made = None if recipe is None else recipe.as_attribute()
            self._weights[key] = self.buffer(place, "weights", array.nbytes, value=stored, recipe=made).buffer
        return replace(place, buffer=self._weights[key])

    def stream(self, array: np.ndarray, recipe: PixelUnits | None = None) -> Place:
        """Constant bytes whose number depends on the data: their type does not, so that layers of one shape share code."""
        place = Place(None, "u8", (1,), (1,))
        stored = weights.constant_attribute(np.ascontiguousarray(array, np.uint8).view(np.int8), layer_name(self.current.location))
        made = None if recipe is None else recipe.as_attribute()
        return self.buffer(place, "weights", array.nbytes, value=stored, recipe=made)

    def constant_place(self, array: np.ndarray) -> Place:
        """f32 or i32 weights."""
        return self.weights(array, "f32" if array.dtype.kind == "f" else "i32")

    # --- values ---------------------------------------------------------------------------------------------------------------------

    def constant_or_none(self, value: Any) -> np.ndarray | None:
        """The stored elements of a constant, or None."""
        return self.folded[value] if value in self.folded else constant_array(value)

    def constant_of(self, op: Any, value: Any, what: str) -> np.ndarray:
        """The stored elements of a constant operand; raises QccError where it is computed."""
        array = self.constant_or_none(value)
        if array is None:
            raise error_at(op, f"the {what} of '{op.name}' is computed at run time, expected a constant")
        return array

    def place(self, value: Any, *, narrow: bool = False) -> Place:
        """Where `value` lies, as codelets store it (decision 0002); constants become weights.

        `narrow`: f32 that is stored as bf16 is given as it lies; otherwise it is copied to f32 first.
        """
        if value not in self.places:
            array = self.constant_or_none(value)
            if array is None:
                raise error_at(self.current, f"found a value of '{value.owner}' that no codelet made")
            element = element_name(value.type)
            if element is None:
                raise error_at(self.current, f"found a constant of {value.type}, which no codelet reads")
            if str(ir.RankedTensorType(value.type).element_type) in MOVED_AS:
                array = array.view(f"int{8 * array.itemsize}")
            self.places[value] = self.weights(
                array.astype(np.int64) + stored_offset(value.type) if element not in ("f32", "i1") else array, element
            )
        place = self.places[value]
        wanted = element_name(value.type)
        if place.element != wanted and wanted is not None and not (narrow and place.element == "bf16"):
            from qcc.passes.tile.codelets.elementwise import convert

            place = convert(cast(Any, self), place, wanted, stored_offset(value.type))
            self.places[value] = place
        return place

    def fact(self, layer: str, **facts: Any) -> None:
        """Something about a layer for the report."""
        self.facts.append((layer, facts))

    # --- calls ----------------------------------------------------------------------------------------------------------------------

    def call(self, codelet: Any, places: Sequence[Place], *, scratch_bytes: int = 0, writes: int = 1) -> None:
        """Call a codelet on the buffers of `places`, declaring it at its first use."""
        operands = [p.buffer for p in places]
        codelet, moved = configuration.without_offsets(codelet)
        name = configuration.symbol(codelet)
        key = (name, tuple(str(v.type) for v in operands))  # a call must have its declaration's types, which views do not determine
        if key not in self._declared:
            same = sum(known == name for known, _ in self._declared)
            self._declared[key] = f"{name}_{same}" if same else name
            attributes = {
                "sym_name": self._declared[key],
                "sym_visibility": "private",
                "function_type": ir.FunctionType.get([v.type for v in operands], []),
                "qtile.codelet": configuration.to_config(codelet),
                "qtile.scratch_bytes": scratch_bytes or None,
                "qtile.writes": writes if writes != 1 else None,
            }
            _function(attributes, ir.Location.unknown(), ir.InsertionPoint(self.module.body))
        name = self._declared[key]
        offsets = [moved.get(i, 0) for i in range(len(operands))] if moved else None
        self.call_function(name, operands, configuration.tasks(codelet), offsets)

    def call_function(self, name: str, operands: Sequence[Any], tasks: int = 1, offset_bytes: Sequence[int] | None = None) -> None:
        """`func.call @name(operands)` behind everything called so far; `offset_bytes`: where in the buffers the operands begin."""
        layer = layer_name(self.current.location)
        attributes = {"callee": ir.FlatSymbolRefAttr.get(name), "qtile.tasks": tasks, "qtile.layer": layer}
        attributes |= {} if offset_bytes is None else {"qtile.offset_bytes": list(offset_bytes)}
        if self.streamed:  # weights of several calls may be those of one operation
            attributes["qtile.operation"] = self._numbers.setdefault(self.current, len(self._numbers))
        attributes |= self.slices.attributes(operands)
        create("func.call", list(operands), [], attributes, loc=self.current.location, ip=ir.InsertionPoint(self._return))

    def params(self, words: Sequence[int]) -> Place:
        """The params buffer of a call."""
        return self.weights(np.array(list(words), np.uint32).view(np.int32), "i32")

    def append_params(self, places: list[Place], words: Sequence[int]) -> int:
        """The number that the params buffer gets behind `places`, or -1 where there are no words and so no buffer."""
        if words:
            places.append(self.params(words))
        return len(places) - 1 if words else -1

    def halo_word(self, value: Any) -> int:
        """The bits of what the border of `value` holds: its stored zero point, or 0.0."""
        a = element_types.affine(ir.RankedTensorType(value.type))
        return 0 if a is None else (int(a.zero_points[0]) + stored_offset(value.type)) & 0xFFFFFFFF


def _is_factor_in_bf16(value: Any, *, computed: bool) -> bool:
    """Whether `value` holds bfloat16 numbers, rounded to them, that a product with constant weights reads (through views and
    concatenations), or one with another such value, where those are `computed` with."""
    if not _is_in_bf16(value):
        return False
    readers = [value]
    for v in readers:
        for user in users(v):
            if user.name in (*VIEWS, "tensor.concat"):
                readers.append(user.results[0])
            elif user.name in ("qcc.conv2d", "qcc.linear") and user.operands[0] == v and constant_array(user.operands[1]) is not None:
                return True
            elif computed and user.name == "qcc.matmul" and all(_is_in_bf16(operand) for operand in user.operands):
                return True
    return False


def _is_in_bf16(value: Any) -> bool:
    """Whether `value` was rounded, or is a concatenation of values that were."""
    op = producer(value, "qcc.unary", "tensor.concat", *VIEWS)
    if op is None:
        return False
    if op.name == "qcc.unary":
        return op_attribute(op, "kind") == "round_bf16"
    return all(_is_in_bf16(v) for v in op.operands)


def _function(attributes: Mapping[str, Any], location: Any, ip: Any) -> Any:
    """A `func.func` without a block."""
    given = {k: to_attribute(v) for k, v in attributes.items() if v is not None}
    return ir.Operation.create("func.func", attributes=given, regions=1, loc=location, ip=ip)
