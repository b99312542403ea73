"""ONNX's quantization operators become `qcc.quantize` and `qcc.dequantize`, with scales and zero points in the type.

Before::

    %q = torch.operator "onnx.QuantizeLinear"(%x, %scale, %zero) : (...) -> !torch.vtensor<[1,3,8,8],ui8>
    %d = torch.operator "onnx.DequantizeLinear"(%q, %scale, %zero) : (...) -> !torch.vtensor<[1,3,8,8],f32>

After::

    %b = torch_c.to_builtin_tensor %x : !torch.vtensor<[1,3,8,8],f32> -> tensor<1x3x8x8xf32>
    %q = "qcc.quantize"(%b) : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8x!quant.uniform<u8:f32, 0.5:3>>
    %f = "qcc.dequantize"(%q) : (tensor<1x3x8x8x!quant.uniform<u8:f32, 0.5:3>>) -> tensor<1x3x8x8xf32>
    %d = torch_c.from_builtin_tensor %f : tensor<1x3x8x8xf32> -> !torch.vtensor<[1,3,8,8],f32>

A constant that is dequantized becomes a `qcc.constant` of the quantized type; a constant that is quantized is rounded here. Integers
that come from or go elsewhere (an input or output of the model that is quantized already) are reinterpreted with `quant.scast`.

A value that is rounded to FP8 and back becomes a `qcc.unary` between a division and a product; weights in FP8 a constant of `!qcc.scaled`.
A dequantize of all that an `onnx.DynamicQuantizeLinear` gives becomes one `qcc.round_dynamic`.

Requires: `torch.operator "onnx.X"` as torch-mlir's ONNX importer makes them, scales and zero points constant, shapes static.
Attributes beside ONNX's: `bits` (width where it is not the container's) and `narrow` (1: the least value is not used).
Guarantees: no `onnx.QuantizeLinear` and no `onnx.DequantizeLinear` is left.
Why: torch-mlir's own conversion knows neither 2-, 4- and 16-bit integers nor blocks, and hides the integer type behind `!torch.qint8`.
Source: ONNX operators QuantizeLinear and DequantizeLinear, opset 10 to 25.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, error_at, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext

QUANTIZE, DEQUANTIZE, DYNAMIC = "onnx.QuantizeLinear", "onnx.DequantizeLinear", "onnx.DynamicQuantizeLinear"


@dataclass(frozen=True)
class _Tensor:
    """A `!torch.vtensor` taken apart: shape, and element type in words such as `f32`, `ui8`, `si4`."""

    shape: tuple[int, ...]
    element: str

    @property
    def builtin(self) -> ir.RankedTensorType:
        """The builtin tensor type that torch's type conversion gives: integers lose their sign."""
        element = re.sub(r"^[su]i", "i", self.element)
        return ir.RankedTensorType.get(list(self.shape), ir.Type.parse(element))

    @property
    def torch(self) -> ir.Type:
        return ir.Type.parse(f"!torch.vtensor<[{','.join(map(str, self.shape))}],{self.element}>")


class ConvertOnnxQuantizationPass(Pass):
    """See the module's docstring."""

    name = "convert-onnx-quantization"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for op in [op for op in walk(module, "torch.operator") if op_attribute(op, "name") == QUANTIZE]:
            with op.location, ir.InsertionPoint(op):
                if _tensor_of(op, op.results[0]).element in _ROUNDED:
                    _convert_small_float(op)
                else:
                    _convert_quantize(op)
        for op in [op for op in walk(module, "torch.operator") if op_attribute(op, "name") == DEQUANTIZE]:
            with op.location, ir.InsertionPoint(op):
                if (x := _dynamically_quantized(op)) is not None:
                    _round(op, x)
                    continue
                _convert_dequantize(op, _quantized(op, op.operands[0]))
        for op in reversed(list(walk(module))):
            if op.name in _UNUSED and not any(list(r.uses) for r in op.results) and _is_dead(op):
                op.erase()


_UNUSED = ("torch.operator", "torch_c.to_builtin_tensor", "torch_c.from_builtin_tensor", "quant.scast", "qcc.constant")


def _is_dead(op: Any) -> bool:
    return op.name != "torch.operator" or op_attribute(op, "name") in ("onnx.Constant", DYNAMIC)


def _dynamically_quantized(op: Any) -> ir.Value | None:
    """What an `onnx.DynamicQuantizeLinear` read whose three results `op` dequantizes, else None."""
    maker = op.operands[0].owner
    if isinstance(maker, ir.Block) or len(op.operands) < 3 or op_attribute(maker.operation, "name") != DYNAMIC:
        return None
    return maker.operation.operands[0] if list(maker.operation.results) == list(op.operands) else None


def _round(op: Any, x: ir.Value) -> None:
    kind = _tensor_of(op, x)
    made = create("qcc.round_dynamic", [_as_builtin(x, kind)], [kind.builtin]).result
    replace_op(op, [create("torch_c.from_builtin_tensor", [made], [op.results[0].type]).result])


def _convert_quantize(op: Any) -> None:
    x, y = _tensor_of(op, op.operands[0]), _tensor_of(op, op.results[0])
    kind = _quantized(op, op.results[0])
    constant = _constant(op.operands[0])
    if constant is None:
        real = _as_builtin(op.operands[0], x)
        if x.element != "f32":
            real = _cast(real, x, "f32")
        stored = create("qcc.quantize", [real], [kind]).result
    else:
        stored = _quantized_constant(constant, kind)
    for use in list(op.results[0].uses):
        user = use.owner.operation
        if user.name == "torch.operator" and op_attribute(user, "name") == DEQUANTIZE and _quantized(user, user.operands[0]) == kind:
            with user.location, ir.InsertionPoint(user):
                _replace_dequantize(user, stored)
    if not list(op.results[0].uses):
        op.erase()
        return
    if kind.element_type.storage_type_integral_width != y.builtin.element_type.width:
        raise error_at(op, f"integers of {kind.element_type} leave the model, expected a width of torch types: 4, 8, 16 or 32 bits")
    integers = create("quant.scast", [stored], [y.builtin]).result
    replace_op(op, [create("torch_c.from_builtin_tensor", [integers], [y.torch]).result])


_ROUNDED = {"f8E4M3FN": ("round_e4m3", 448.0), "f8E5M2": ("round_e5m2", 57344.0)}
"""8-bit floats: the function that rounds to them, and the greatest."""


def _convert_small_float(op: Any) -> None:
    """Quantize and dequantize of a run-time value in 8-bit floats: a function of f32 between a division and a product."""
    x, element = _tensor_of(op, op.operands[0]), _tensor_of(op, op.results[0]).element
    (scale, zero), readers = _parameters(op), [use.owner.operation for use in op.results[0].uses]
    same = all(op_attribute(user, "name") == DEQUANTIZE and np.array_equal(_parameters(user)[0], scale) for user in readers)
    if not same or zero.any() or not op_attribute(op, "torch.onnx.saturate", 1):
        raise error_at(
            op, f"{element} is computed with, has a zero point or does not saturate, expected DequantizeLinear of the same scale"
        )
    kind, (rounding, most) = ir.RankedTensorType.get(list(x.shape), ir.F32Type.get()), _ROUNDED[element]
    axis = int(op_attribute(op, "torch.onnx.axis", 1)) % max(len(x.shape), 1)
    factor = scale.reshape([-1 if i == axis and scale.size > 1 else 1 for i in range(len(x.shape))])
    shape = ir.RankedTensorType.get(list(factor.shape), ir.F32Type.get())
    scales = create("qcc.constant", [], [shape], {"value": weights.constant_attribute(factor)}).result
    real = _as_builtin(op.operands[0], x)
    real = create("qcc.div", [real if x.element == "f32" else _cast(real, x, "f32"), scales], [kind]).result
    real = create("qcc.clamp", [real], [kind], {"min": _f32(-most), "max": _f32(most)}).result
    rounded = create("qcc.unary", [real], [kind], {"kind": rounding}).result
    y = create("qcc.mul", [rounded, scales], [kind]).result
    for user in readers:
        result = _tensor_of(user, user.results[0])
        with user.location, ir.InsertionPoint(user):
            made = y if result.element == "f32" else _cast(y, _Tensor(x.shape, "f32"), result.element)
            replace_op(user, [create("torch_c.from_builtin_tensor", [made], [result.torch]).result])
    op.erase()


def _f32(value: float) -> ir.Attribute:
    return ir.FloatAttr.get(ir.F32Type.get(), value)


def _quantized(op: Any, value: ir.Value) -> ir.RankedTensorType:
    """The quantized type that the parameters of `op` give to the integers `value`."""
    x = _tensor_of(op, value)
    return ir.RankedTensorType.get(list(x.shape), _element_type(op, x.shape, x))


def _convert_dequantize(op: Any, kind: ir.RankedTensorType) -> None:
    constant = _constant(op.operands[0])
    if constant is not None:
        payload = constant.astype(element_types.storage_dtype(kind), copy=False)
        try:
            element_types.check_payload(payload, kind)
        except element_types.Invalid as problem:
            raise error_at(op, str(problem)) from None
        stored = create("qcc.constant", [], [kind], {"value": weights.constant_attribute(payload, _resource_name(op))}).result
    else:
        integers = _tensor_of(op, op.operands[0])
        if kind.element_type.storage_type_integral_width != integers.builtin.element_type.width:
            raise error_at(
                op, f"integers of {kind.element_type} enter the model, expected a width that torch types have: 4, 8, 16 or 32 bits"
            )
        stored = create("quant.scast", [_as_builtin(op.operands[0], integers)], [kind]).result
    _replace_dequantize(op, stored)


def _replace_dequantize(op: Any, stored: ir.Value) -> None:
    y = _tensor_of(op, op.results[0])
    real = create("qcc.dequantize", [stored], [ir.RankedTensorType.get(list(y.shape), ir.F32Type.get())]).result
    if y.element != "f32":
        real = _cast(real, _Tensor(y.shape, "f32"), y.element)
    replace_op(op, [create("torch_c.from_builtin_tensor", [real], [y.torch]).result])


def _element_type(op: Any, shape: tuple[int, ...], stored: _Tensor) -> ir.Type:
    """The `!quant.uniform` type that scale, zero point and attributes of `op` state for stored integers of type `stored`."""
    if stored.element.startswith("f8"):
        return _scaled_type(op, shape, ir.Type.parse(stored.element))
    match = re.fullmatch(r"([su])i(\d+)", stored.element)
    if match is None:
        raise error_at(op, f"the stored values are {stored.element}, expected an integer of at most 32 bits")
    signed, bits = match[1] == "s", int(op_attribute(op, "torch.onnx.bits", int(match[2])))
    low = (-(1 << (bits - 1)) + int(op_attribute(op, "torch.onnx.narrow", 0))) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - int(op_attribute(op, "torch.onnx.narrow", 0))
    scale, zero = _parameters(op)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        wrong = scale.reshape(-1)[~(np.isfinite(scale) & (scale > 0)).reshape(-1)][0]
        raise error_at(op, f"a scale is {wrong}, expected a positive finite number; calibrate this layer again")
    if zero.size and not (low <= zero.min() and zero.max() <= high):
        raise error_at(op, f"a zero point lies in {zero.min()}..{zero.max()}, expected {low}..{high} of {bits} bits")
    common: dict[str, Any] = {"bits": bits, "signed": signed, "qmin": low, "qmax": high}
    if scale.size == 1:
        return element_types.affine_type(scale.reshape(-1)[0], zero.reshape(-1)[0], **common)
    axis = int(op_attribute(op, "torch.onnx.axis", 1))
    axis += len(shape) if axis < 0 else 0
    if not 0 <= axis < len(shape):
        raise error_at(op, f"'axis' is {op_attribute(op, 'torch.onnx.axis', 1)}, expected one of the {len(shape)} axes of {list(shape)}")
    if scale.ndim == 1 and scale.size == shape[axis]:
        return element_types.affine_type(scale, zero, axis=axis, **common)
    return _blocked_type(op, shape, axis, scale, zero, common)


def _scaled_type(op: Any, shape: tuple[int, ...], element: ir.Type) -> ir.Type:
    """The type of weights in 8-bit floats times a scale."""
    scale, zero = _parameters(op)
    if zero.any():
        raise error_at(op, f"{element} has a zero point that is not 0, which has no meaning for floats; expected 0")
    if scale.size == 1:
        return types.make_type(types.Scaled(element, scale.reshape(1)))
    axis = int(op_attribute(op, "torch.onnx.axis", 1)) % len(shape)
    if scale.ndim == 1 and scale.size == shape[axis]:
        scale = scale.reshape([size if i == axis else 1 for i, size in enumerate(shape)])
    if scale.ndim != len(shape) or any(size % blocks for size, blocks in zip(shape, scale.shape, strict=True)):
        raise error_at(op, f"the scale has shape {list(scale.shape)} for data {list(shape)}, expected one value, one per channel or block")
    return types.make_type(types.Scaled(element, scale))


def _blocked_type(op: Any, shape: tuple[int, ...], axis: int, scale: np.ndarray, zero: np.ndarray, common: dict[str, Any]) -> ir.Type:
    """A sub-channel type: one scale per block along `axis` and per index of the other axes."""
    blocks = scale.shape[axis] if scale.ndim == len(shape) else 0
    size = int(op_attribute(op, "torch.onnx.block_size", 0)) or (-(-shape[axis] // blocks) if blocks else 0)
    fits = scale.ndim == len(shape) and all(s == d or i == axis for i, (s, d) in enumerate(zip(scale.shape, shape, strict=True)))
    if not fits or -(-shape[axis] // size) != blocks:
        raise error_at(
            op,
            f"the scale has shape {list(scale.shape)} for data {list(shape)}, expected one value, one per index of axis {axis}, "
            "or one per block along it",
        )
    if blocks * size != shape[axis]:
        raise error_at(
            op, f"axis {axis} has {shape[axis]} elements in blocks of {size}, expected a whole number of blocks; pad the weights"
        )
    sizes = {i: size if i == axis else 1 for i in range(len(shape))}
    return element_types.grouped_type(scale, zero, sizes, **common)


def _parameters(op: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale f32 and zero point i64 of equal shape."""
    scale = _constant(op.operands[1])
    if scale is None:
        raise error_at(op, "the scale is computed at run time, expected a constant")
    scale = scale.astype(np.float32)
    if len(op.operands) < 3 or str(op.operands[2].type) == "!torch.none":
        return scale, np.zeros(scale.shape, np.int64)
    zero = _constant(op.operands[2])
    if zero is None:
        raise error_at(op, "the zero point is computed at run time, expected a constant")
    if zero.size not in (1, scale.size):
        raise error_at(op, f"found {zero.size} zero points and {scale.size} scales, expected as many")
    return scale, np.resize(zero.astype(np.int64), scale.shape)


def _quantized_constant(real: np.ndarray, kind: ir.RankedTensorType) -> ir.Value:
    a = element_types.affine(kind)
    assert a is not None
    scales, zeros = a.expand(a.scales, kind.shape), a.expand(a.zero_points, kind.shape)
    levels = np.rint(real.astype(np.float32) / scales).astype(np.float64) + zeros
    payload = np.clip(levels, a.qmin, a.qmax).astype(element_types.storage_dtype(kind))
    return create("qcc.constant", [], [kind], {"value": weights.constant_attribute(payload)}).result


def _constant(value: ir.Value) -> np.ndarray | None:
    """Contents of an `onnx.Constant`, a torch literal or a `qcc.constant` brought to torch; None for anything else."""
    op = value.owner
    if not isinstance(op, ir.Operation | ir.OpView):
        return None
    op = op.operation
    if op.name == "torch_c.from_builtin_tensor":
        return _constant(op.operands[0])
    if op.name == "torch.operator" and op_attribute(op, "name") == "onnx.Constant":
        key = "torch.onnx.value"
    elif op.name in ("torch.vtensor.literal", "qcc.constant"):
        key = "value"
    else:
        return None
    return weights.array_of(op.attributes[key]) if key in op.attributes else None


def _tensor_of(op: Any, value: ir.Value) -> _Tensor:
    match = re.fullmatch(r"!torch\.vtensor<\[([\d,]*)\],(\w+)>", str(value.type))
    if match is None:
        raise error_at(op, f"found {value.type}, expected a torch tensor of static shape; fix dynamic sizes by example inputs or --batch")
    return _Tensor(tuple(int(d) for d in match[1].split(",") if d), match[2])


def _as_builtin(value: ir.Value, kind: _Tensor) -> ir.Value:
    return create("torch_c.to_builtin_tensor", [value], [kind.builtin]).result


def _cast(value: ir.Value, kind: _Tensor, element: str) -> ir.Value:
    """Convert between float types through arith, which acts on tensors as well."""
    target = ir.RankedTensorType.get(list(kind.shape), ir.Type.parse(element))
    wider = weights.numpy_dtype(ir.Type.parse(element)).itemsize > weights.numpy_dtype(ir.Type.parse(kind.element)).itemsize
    if not isinstance(ir.Type.parse(kind.element), ir.FloatType):
        raise QccError(f"found {kind.element} to quantize, expected a float type")
    return create("arith.extf" if wider else "arith.truncf", [value], [target]).result


def _resource_name(op: Any) -> str:
    """The name of the constant that `op` dequantizes, for the key of its payload."""
    location = op.operands[0].owner.location
    return location.name_str if isinstance(location, ir.NameLoc) else ""
