"""The smaller operations: every value keeps its needed channels, constants and attributes follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import compressed_types, element_types
from qcc.dialects.mlir import create, dense_f32, ir, layer_name, op_attribute, to_attribute
from qcc.dialects.real_values import decode
from qcc.passes.integer._channels.axes import aligned, is_constant
from qcc.passes.integer._channels.demand import Demand
from qcc.passes.integer._channels.products import NAMES, Product, channels_enter
from qcc.passes.values import (
    attributes_of,
    constant_array,
    dequantized,
    element_of,
    make_constant,
    make_float_constant,
    rebuilt,
    retyped,
    shape_of,
)

Array = np.ndarray[Any, Any]


def _has_one_scale_per_channel(kind: ir.Type) -> bool:
    """Whether a type goes on to fit when channels go: affine with scales of axis 0, or one scale (and set of levels) for all."""
    a = element_types.affine(kind)
    if a is not None:
        return a.block is None and a.axis in (None, 0)
    described = compressed_types.describe(kind)
    if described is None or isinstance(described, compressed_types.Blockscaled):
        return False
    return all(v.size == 1 or v.ndim == 1 for v in vars(described).values() if isinstance(v, np.ndarray))


class Rewrite:
    """Replaces operations in program order; `values` maps what was replaced to what it became."""

    def __init__(self, demand: Demand) -> None:
        self.demand, self.axes = demand, demand.axes
        self.values: dict[Any, Any] = {}
        self.layers: list[tuple[str, int, int, int, int]] = []  # name, outputs and inputs before, outputs and inputs removed

    def run(self) -> None:
        replaced: list[Any] = []
        for op in self.demand.operations:
            result = op.results[0] if op.results else None
            cut = result is not None and result in self.axes and not self.kept(result).all()
            if not cut and not any(v in self.values for v in op.operands):
                continue
            if result is None or result not in self.axes:
                for i, value in enumerate(op.operands):
                    if value in self.values:
                        op.operands[i] = self.values[value]
                continue
            self.values[result] = self.product(op) if op.name in NAMES else self.other(op)
            replaced.append(op)
        for op in reversed(replaced):
            for result in op.results:
                if result.type == self.values[result].type:
                    result.replace_all_uses_with(self.values[result])
            op.erase()

    def kept(self, value: Any) -> Array:
        return self.demand.needed[value]

    def shape(self, value: Any) -> list[int]:
        shape = shape_of(value)
        if value in self.axes:
            shape[self.axes[value]] = int(self.kept(value).sum())
        return shape

    def product(self, op: Any) -> Any:
        x, result = op.operands[0], op.results[0]
        found = self.demand.products.get(op)
        if found is None:  # all its channels are needed
            return rebuilt(op, [self.values.get(v, v) for v in op.operands], result.type)
        outputs = self.kept(result)
        inputs = self.kept(x) if found.groups == 1 and channels_enter(op, self.axes) else np.ones(found.touched.shape[1], np.bool_)
        attributes = attributes_of(op)
        if found.groups > 1:
            attributes["groups"] = to_attribute(int(outputs.reshape(found.groups, -1).any(axis=1).sum()))
        operands = [self.values.get(x, x), self.weight(op, outputs, inputs), self.bias(op, found, outputs, inputs)]
        self.layers.append((layer_name(op.location), outputs.size, inputs.size, int((~outputs).sum()), int((~inputs).sum())))
        kind = retyped(result, element_of(result), self.shape(result))
        return create(op.name, operands, [kind], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results[0]

    def weight(self, op: Any, outputs: Array, inputs: Array) -> Any:
        given = op.operands[1]
        if outputs.all() and inputs.all():
            return given
        source = dequantized(given)
        stored = given if source is None else source
        array = constant_array(stored)
        assert array is not None, "products with computed weights keep all channels"
        cut = np.ascontiguousarray(array[outputs][:, inputs])
        element = element_of(stored)
        a = element_types.affine(stored.type)
        if source is not None and not _has_one_scale_per_channel(stored.type):
            real = decode(array, ir.RankedTensorType(stored.type))[outputs][:, inputs]
            return make_float_constant(real, op, loc=stored.owner.location, name=layer_name(stored.owner.location))
        if a is not None and a.axis == 0:
            common: dict[str, Any] = {"bits": a.bits, "signed": a.signed, "qmin": a.qmin, "qmax": a.qmax}
            element = element_types.affine_type(a.scales[outputs], a.zero_points[outputs], axis=0, **common)
        constant = make_constant(cut, element, op, loc=stored.owner.location, name=layer_name(stored.owner.location))
        if source is None:
            return constant
        return rebuilt(given.owner.operation, [constant], retyped(given, element_of(given), cut.shape), before=op)

    def bias(self, op: Any, found: Product, outputs: Array, inputs: Array) -> Any:
        """The bias of the kept outputs, with what the removed inputs would have added."""
        added = self.demand.constants.folded(op, found, ~inputs) if found.groups == 1 else np.zeros_like(found.bias)
        given = op.operands[2] if len(op.operands) > 2 else None
        if not added[outputs].any():
            return None if given is None else self.cut(given, 0, outputs, op)
        total = (found.bias + added)[outputs]
        if found.is_float:
            return make_float_constant(total, op, name=layer_name(op.location))
        return make_constant(total.astype(np.int32), ir.IntegerType.get_signless(32), op, name=layer_name(op.location))

    def other(self, op: Any) -> Any:
        result = op.results[0]
        kept, axis = self.kept(result), self.axes[result]
        operands = []
        for number, value in enumerate(op.operands):
            if is_constant(value) and op.name != "tensor.concat":
                per_channel = number == 1 and op.name in ("qcc.requantize", "qcc.dequantize") and len(shape_of(value)) == 1
                at = (0 if shape_of(value)[0] == kept.size else None) if per_channel else aligned(value, result, axis)
                operands.append(value if at is None else self.cut(value, at, kept, op))
            else:
                operands.append(self.values.get(value, value))
        attributes = attributes_of(op)
        for name in ("multiplier", "shift"):
            if op.name in ("qcc.requantize", "qcc.dequantize") and name in attributes:
                values = op_attribute(op, name).reshape(-1)
                if values.size == kept.size and not kept.all() and op_attribute(op, "axis") == axis:
                    attributes[name] = dense_f32(values[kept]) if values.dtype == np.float32 else to_attribute(values[kept])
        kind = retyped(result, element_of(result), self.shape(result))
        return create(op.name, operands, [kind], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results[0]

    def cut(self, value: Any, axis: int, kept: Array, before: Any) -> Any:
        """Constant `value` with the `kept` indices of `axis` only."""
        array = constant_array(value)
        if kept.all() or array is None:
            return value
        cut = np.ascontiguousarray(np.compress(kept, array, axis=axis))
        return make_constant(cut, element_of(value), before, loc=value.owner.location, name=layer_name(value.owner.location))
