"""Runs a graph- or integer-form module operation by operation with the numpy meanings of `qcc.py`.

Quantized tensors are numpy arrays of stored integers in their storage dtype, accumulators signed integers, floats f32. Functions that
hold upstream operations only (the generic path) are given to `generic`, by default a small JIT of upstream passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qcc.dialects import element_types, weights
from qcc.dialects.element_types import Affine
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, error_at, ir, op_attribute, walk
from qcc.runtime.reference import formats
from qcc.runtime.reference import qcc as meaning

Array = np.ndarray[Any, Any]
OnOp = Callable[[Any, list[Array]], "Sequence[Array] | None"]
State = dict[str, Array]
Generic = Callable[[ir.Module, str, Sequence[Array]], list[Array]]


def run(
    module: ir.Module,
    inputs: Sequence[Array],
    *,
    function: str = "main",
    on_op: OnOp | None = None,
    generic: Generic | None = None,
    state: State | None = None,
) -> list[Array]:
    """Results of `function` on `inputs`, which must have the shapes and storage dtypes of its arguments.

    `on_op(op, results)` is called behind every operation of the function, for comparing layer by layer; arrays that it returns take the
    place of the results. `generic(module, name, inputs)` runs a function of upstream operations. `state` holds what the model keeps from
    run to run, by name, and is changed. Raises QccError for a missing function, inputs that do not fit, operations without a meaning
    here, and values that leave their type (an accumulator too narrow).
    """
    functions = {op.attributes["sym_name"].value: op for op in module.body.operations if op.operation.name == "func.func"}
    if function not in functions:
        raise QccError(f"the module has no function '{function}', expected one of: {', '.join(functions) or 'none'}")
    with module.context, ir.Location.unknown():
        interpreter = _Interpreter(module, functions, on_op, generic or _jit, {} if state is None else state)
        results = interpreter.call(function, list(inputs))
        interpreter.state.update(interpreter.written)
        return results


def _jit(module: ir.Module, name: str, inputs: Sequence[Array]) -> list[Array]:
    from qcc.runtime.cpu import generic_jit

    return generic_jit.run(module, name, inputs)


class _Interpreter:
    def __init__(self, module: ir.Module, functions: dict[str, Any], on_op: OnOp | None, generic: Generic, state: State) -> None:
        self.module, self.functions, self.on_op, self.generic, self.state = module, functions, on_op, generic, state
        self.written: State = {}

    def call(self, name: str, inputs: list[Array]) -> list[Array]:
        body = self.functions[name].regions[0].blocks[0]
        _check_inputs(name, body.arguments, inputs)
        values: dict[Any, Array] = dict(zip(body.arguments, inputs, strict=True))
        uses = {value: sum(1 for _ in value.uses) for op in body.operations for value in op.results}
        for view in body.operations:
            op = view.operation
            operands = [values[v] for v in op.operands]
            if op.name == "func.return":
                return operands
            results = self.execute(op, operands, values)
            for value, array in zip(op.results, results, strict=True):
                values[value] = _stored(op, array, value.type)
            if self.on_op is not None and (replaced := self.on_op(op, [values[v] for v in op.results])) is not None:
                values.update(zip(op.results, replaced, strict=True))
            for value in op.operands:  # activations of a large network are let go as soon as nobody needs them
                if value in uses:
                    uses[value] -= 1
                    if not uses[value]:
                        del values[value], uses[value]
        raise QccError(f"function '{name}' does not end in func.return")

    def execute(self, op: Any, operands: list[Array], values: dict[Any, Array]) -> list[Array]:
        if op.name == "func.call":
            callee = op_attribute(op, "callee")
            if callee not in self.functions or not self.functions[callee].regions[0].blocks:
                raise error_at(op, f"function '{callee}' has no body in this module, so the reference cannot run it")
            if any(inner.name.startswith("qcc.") for inner in walk(self.functions[callee])):
                return self.call(callee, operands)
            return self.generic(self.module, callee, operands)
        if op.name == "qcc.read_state":
            return [self.state.get(op_attribute(op, "state"), _initial(op))]
        if op.name == "qcc.write_state":
            self.written[op_attribute(op, "state")] = operands[0]
            return []
        handler = HANDLERS.get(op.name)
        if handler is None:
            used = _values_used(op)
            return self.generic(*_outline(op, used), [np.asarray(values[v]) for v in used])
        try:
            return [handler(op, *operands)]
        except (OverflowError, IndexError) as problem:
            raise error_at(op, f"'{op.name}': {problem}") from None


def _check_inputs(name: str, arguments: Any, inputs: Sequence[Array]) -> None:
    if len(arguments) != len(inputs):
        raise QccError(f"function '{name}' takes {len(arguments)} inputs, found {len(inputs)}")
    for i, (argument, array) in enumerate(zip(arguments, inputs, strict=True)):
        kind = argument.type
        if not isinstance(kind, ir.RankedTensorType):
            raise QccError(f"input {i} of '{name}' is {kind}, expected a tensor")
        dtype = element_types.storage_dtype(kind)
        if list(array.shape) != list(kind.shape) or array.dtype != dtype:
            raise QccError(
                f"input {i} of '{name}' has shape {list(array.shape)} and dtype {array.dtype}, "
                f"expected {list(kind.shape)} and {dtype} for {kind}"
            )


def _stored(op: Any, array: Array, kind: ir.Type) -> Array:
    """`array` in the storage dtype of `kind`; raises QccError where it has the wrong shape or does not fit."""
    array = np.asarray(array)
    if not isinstance(kind, ir.RankedTensorType):
        return array.astype(weights.numpy_dtype(kind))
    if list(array.shape) != list(kind.shape):
        raise error_at(op, f"'{op.name}' computed shape {list(array.shape)}, its type says {list(kind.shape)}")
    dtype = element_types.storage_dtype(kind)
    element = kind.element_type
    if array.dtype.kind in "iu" and isinstance(element, ir.IntegerType) and not element.is_unsigned and array.size and element.width > 1:
        low, high = -(1 << (element.width - 1)), (1 << (element.width - 1)) - 1
        if not (low <= int(array.min()) and int(array.max()) <= high):
            raise error_at(
                op, f"'{op.name}' gives {int(array.min())}..{int(array.max())}, which {element} cannot hold; widen the accumulator"
            )
    return array if array.dtype == dtype else array.astype(dtype)


def _values_used(op: Any) -> list[Any]:
    """What `op` and the operations in its regions take from outside, each once."""
    inside = {value for inner in walk(op) for value in inner.results}
    inside |= {a for inner in walk(op) for region in inner.regions for block in region.blocks for a in block.arguments}
    return list(dict.fromkeys(v for inner in walk(op) for v in inner.operands if v not in inside))


def _outline(op: Any, used: Sequence[Any]) -> tuple[ir.Module, str]:
    """A module whose one function of `used` does what the single upstream operation `op` does; scalars become tensors without axes."""
    for value in [*used, *op.results]:
        element = value.type.element_type if isinstance(value.type, ir.RankedTensorType) else value.type
        if not isinstance(element, ir.FloatType | ir.IntegerType | ir.IndexType):
            raise error_at(
                op, f"the reference has no meaning for '{op.name}' on {value.type}, expected operations of the graph or integer form"
            )
    module = ir.Module.create(op.location)
    inputs = [v.type if isinstance(v.type, ir.RankedTensorType) else ir.RankedTensorType.get([], v.type) for v in used]
    outputs = [v.type if isinstance(v.type, ir.RankedTensorType) else ir.RankedTensorType.get([], v.type) for v in op.results]
    with ir.InsertionPoint(module.body):
        kind = ir.TypeAttr.get(ir.FunctionType.get(inputs, outputs))
        attributes = {"sym_name": ir.StringAttr.get("island"), "function_type": kind}
        function = ir.Operation.create("func.func", attributes=attributes, regions=1, loc=op.location)
    block = function.regions[0].blocks.append(*inputs, arg_locs=[op.location] * len(inputs))
    with ir.InsertionPoint(block):
        inner: dict[Any, Any] = {}
        for value, argument in zip(used, block.arguments, strict=True):
            scalar = not isinstance(value.type, ir.RankedTensorType)
            inner[value] = create("tensor.extract", [argument], [value.type], loc=op.location).result if scalar else argument
        clone = op.clone()
        for part in walk(clone):
            for i, operand in enumerate(part.operands):
                if operand in inner:
                    part.operands[i] = inner[operand]
        results = [
            v if isinstance(v.type, ir.RankedTensorType) else create("tensor.from_elements", [v], [k], loc=op.location).result
            for v, k in zip(clone.results, outputs, strict=True)
        ]
        ir.Operation.create("func.return", operands=results, loc=op.location)
    return module, "island"


# --- parameters from types and attributes -------------------------------------------------------------------------------------------


def _tensor(value: Any) -> ir.RankedTensorType:
    return ir.RankedTensorType(value.type)


def _affine(op: Any, value: Any) -> Affine:
    found = element_types.affine(_tensor(value))
    if found is None:
        raise error_at(op, f"'{op.name}' found {_tensor(value).element_type}, expected an affine type !quant.uniform")
    return found


def _zero_point(op: Any, value: Any) -> Array:
    """Zero point of a tensor, shaped to broadcast against it; 0 for integers and accumulators."""
    kind = _tensor(value)
    a = element_types.affine(kind)
    return np.zeros((), np.int64) if a is None else a.expand(a.zero_points, kind.shape)


def _per_channel(op: Any, name: str, rank: int) -> Array:
    """Elements attribute `name` of one entry, or of one per index of attribute `axis`, shaped to broadcast."""
    values = op_attribute(op, name)
    shape = [1] * rank
    if values.size != 1:
        shape[op_attribute(op, "axis")] = values.size
    return values.reshape(shape)


def _output_range(op: Any) -> dict[str, int]:
    """`clamp` of an operation, or the range of its result's type."""
    y = _affine(op, op.results[0])
    low, high = op_attribute(op, "clamp", [y.qmin, y.qmax])
    return {"low": max(low, y.qmin), "high": min(high, y.qmax)}


def _fixed(op: Any) -> dict[str, Any]:
    """`shift` and `rounding` where an element-wise operation is in mode "fixed"."""
    if op_attribute(op, "mode", "f32") == "f32":
        return {}
    return {"shift": op_attribute(op, "shift")[0], "rounding": op_attribute(op, "rounding", "half_even")}


def _integers(op: Any, value: Any, stored: Array) -> Array:
    """The integers whose products an accumulator sums: zero point subtracted; floats pass through."""
    kind = _tensor(value)
    if isinstance(kind.element_type, ir.FloatType):
        return stored
    try:
        return formats.integers(stored, kind)
    except QccError as problem:
        raise error_at(op, f"'{op.name}': {problem.message}") from None


def _has(op: Any, name: str) -> bool:
    return name in op.attributes


# --- one handler per operation ------------------------------------------------------------------------------------------------------


def _constant(op: Any) -> Array:
    attribute = op.attributes["value"]
    if not weights.is_elements(attribute):
        return np.asarray(op_attribute(op, "value"))
    return meaning.constant(weights.array_of(attribute))


def _initial(op: Any) -> Array:
    """What a state holds before the first run."""
    kind = _tensor(op.results[0])
    return op_attribute(op, "value") if _has(op, "value") else np.zeros(list(kind.shape), element_types.storage_dtype(kind))


def _quantize(op: Any, x: Array) -> Array:
    kind = _tensor(op.results[0])
    a = element_types.affine(kind)
    if a is None:
        return formats.encode(x, kind)
    return meaning.quantize(
        x, scale=a.expand(a.scales, kind.shape), zero_point=a.expand(a.zero_points, kind.shape), qmin=a.qmin, qmax=a.qmax
    )


def _dequantize(op: Any, x: Array, bias: Array | None = None) -> Array:
    kind = _tensor(op.operands[0])
    if _has(op, "multiplier"):
        if bias is not None and bias.ndim == 1 and _has(op, "axis"):
            bias = bias.reshape([-1 if i == op_attribute(op, "axis") else 1 for i in range(x.ndim)])
        acc = x if element_types.affine(kind) is None else formats.integers(x, kind)
        return meaning.dequantize_accumulator(acc, multiplier=_per_channel(op, "multiplier", x.ndim), bias=bias)
    a = element_types.affine(kind)
    if a is None:
        return formats.decode(x, kind)
    return meaning.dequantize(x, scale=a.expand(a.scales, kind.shape), zero_point=a.expand(a.zero_points, kind.shape))


def _requantize(op: Any, x: Array, bias: Array | None = None) -> Array:
    acc = x.astype(np.int64) - _zero_point(op, op.operands[0])
    if bias is not None:
        acc = acc + (bias.reshape([-1 if i == op_attribute(op, "axis") else 1 for i in range(x.ndim)]) if bias.ndim == 1 else bias)
    multiplier = _per_channel(op, "multiplier", x.ndim)
    kind = _tensor(op.results[0])
    if element_types.affine(kind) is None:  # levels, powers of two and floats have no zero point to add: round the real value
        return formats.encode(acc.astype(np.float32) * multiplier, kind)
    zero_point = _zero_point(op, op.results[0])
    if op_attribute(op, "mode") == "f32":
        return meaning.requantize(acc, multiplier=multiplier, zero_point=zero_point, **_output_range(op))
    return meaning.requantize_fixed(
        acc,
        multiplier=multiplier,
        shift=_per_channel(op, "shift", x.ndim),
        zero_point=zero_point,
        rounding=op_attribute(op, "rounding", "half_even"),
        **_output_range(op),
    )


def _conv2d(op: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
    x, w = (_integers(op, value, stored) for value, stored in zip(op.operands, (x, w), strict=False))
    return meaning.conv2d(x, w, bias, **_attributes(op, "strides", "padding", "dilations", "groups"))


def _linear(op: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
    x, w = (_integers(op, value, stored) for value, stored in zip(op.operands, (x, w), strict=False))
    return meaning.linear(x, w, bias)


def _matmul(op: Any, a: Array, b: Array) -> Array:
    return meaning.matmul(_integers(op, op.operands[0], a), _integers(op, op.operands[1], b))


def _elementwise(real: Callable[..., Array], quantized: Callable[..., Array]) -> Callable[..., Array]:
    def handler(op: Any, a: Array, b: Array) -> Array:
        if not _has(op, "multipliers"):
            return real(a, b)
        zero_points = tuple(_zero_point(op, v) for v in (*op.operands, op.results[0]))
        return quantized(a, b, zero_points=zero_points, multipliers=op_attribute(op, "multipliers"), **_output_range(op), **_fixed(op))

    return handler


def _clamp(op: Any, x: Array) -> Array:
    low, high = op_attribute(op, "min"), op_attribute(op, "max")
    if element_types.affine(_tensor(op.operands[0])) is None:
        return meaning.clamp(x, min=low, max=high)
    a = _affine(op, op.operands[0])  # of a quantized tensor: between the stored values of the two bounds
    scale, zero_point = a.expand(a.scales, x.shape), a.expand(a.zero_points, x.shape)
    bounds = [
        meaning.quantize(np.asarray(v, np.float32), scale=scale, zero_point=zero_point, qmin=a.qmin, qmax=a.qmax) for v in (low, high)
    ]
    return np.clip(x.astype(np.int64), *bounds)


def _avg_pool2d(op: Any, x: Array) -> Array:
    window = _attributes(op, "kernel", "strides", "padding", "count_include_pad")
    if not _has(op, "multipliers"):
        return meaning.avg_pool2d(x, **window)
    zero_points = (_zero_point(op, op.operands[0]), _zero_point(op, op.results[0]))
    return meaning.avg_pool2d_quantized(
        x, **window, multiplier=op_attribute(op, "multipliers")[0], zero_points=zero_points, **_output_range(op), **_fixed(op)
    )


def _dynamic_linear(op: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
    return meaning.dynamic_linear(
        x, _integers(op, op.operands[1], w), bias, scales=_affine(op, op.operands[1]).scales, **_attributes(op, "rows", "epsilon")
    )


def _softmax(op: Any, x: Array) -> Array:
    axis = op_attribute(op, "axis")
    if not _has(op, "table"):
        return meaning.softmax(x, axis=axis)
    table, multiplier = op_attribute(op, "table"), op_attribute(op, "multiplier").reshape(-1)[0]
    y = _affine(op, op.results[0])
    zero_point = _zero_point(op, op.results[0])
    return meaning.softmax_quantized(x, axis=axis, table=table, multiplier=multiplier, zero_point=zero_point, qmin=y.qmin, qmax=y.qmax)


def _pad(op: Any, x: Array) -> Array:
    kind = _tensor(op.results[0])
    a = element_types.affine(kind)
    value = op_attribute(op, "value", 0.0) if a is None else a.expand(a.zero_points, kind.shape)
    return meaning.pad(x, **_attributes(op, "low", "high"), value=value)


def _attributes(op: Any, *names: str) -> dict[str, Any]:
    return {name: op_attribute(op, name) for name in names}


def _plain(function: Callable[..., Array], *names: str) -> Callable[..., Array]:
    """A handler that passes operands and the attributes `names` on as they are."""
    return lambda op, *operands: function(*operands, **_attributes(op, *names))


def _shaped(function: Callable[..., Array], *names: str) -> Callable[..., Array]:
    """The same with the result's shape."""
    return lambda op, *operands: function(*operands, shape=list(_tensor(op.results[0]).shape), **_attributes(op, *names))


HANDLERS: dict[str, Callable[..., Array]] = {
    "arith.constant": _constant,
    "tensor.concat": lambda op, *xs: meaning.concat(xs, dim=op_attribute(op, "dim")),
    "qcc.constant": _constant,
    "qcc.quantize": _quantize,
    "qcc.dequantize": _dequantize,
    "qcc.requantize": _requantize,
    "qcc.conv2d": _conv2d,
    "qcc.linear": _linear,
    "qcc.matmul": _matmul,
    "qcc.batch_norm": _plain(meaning.batch_norm, "epsilon"),
    "qcc.add": _elementwise(meaning.add, meaning.add_quantized),
    "qcc.sub": _elementwise(meaning.sub, meaning.sub_quantized),
    "qcc.mul": _elementwise(meaning.mul, meaning.mul_quantized),
    "qcc.div": _plain(meaning.div),
    "qcc.maximum": _plain(meaning.maximum),
    "qcc.minimum": _plain(meaning.minimum),
    "qcc.compare": _plain(meaning.compare, "kind"),
    "qcc.select": _plain(meaning.select),
    "qcc.clamp": _clamp,
    "qcc.unary": _plain(meaning.unary, "kind", "alpha"),
    "qcc.lut": lambda op, x: meaning.lut(x, table=op_attribute(op, "table"), qmin=_affine(op, op.operands[0]).qmin),
    "qcc.max_pool2d": _plain(meaning.max_pool2d, "kernel", "strides", "padding", "dilations"),
    "qcc.avg_pool2d": _avg_pool2d,
    "qcc.reduce": _plain(meaning.reduce, "kind", "axes", "keepdims"),
    "qcc.softmax": _softmax,
    "qcc.round_dynamic": _plain(meaning.round_dynamic, "rows", "epsilon"),
    "qcc.dynamic_linear": _dynamic_linear,
    "qcc.layer_norm": _plain(meaning.layer_norm, "axes", "epsilon"),
    "qcc.rms_norm": _plain(meaning.rms_norm, "axes", "epsilon"),
    "qcc.attention": _plain(meaning.attention, "scale", "causal"),
    "qcc.embedding": _plain(meaning.embedding),
    "qcc.insert": _plain(meaning.insert, "axis"),
    "qcc.reshape": _shaped(meaning.reshape),
    "qcc.transpose": _plain(meaning.transpose, "permutation"),
    "qcc.slice": _shaped(meaning.slice_, "offsets", "strides"),
    "qcc.pad": _pad,
    "qcc.broadcast": _shaped(meaning.broadcast),
}
