"""One quantized layer at a time, of random shape and quantization: the integer form gives what the graph form gives, but for one step.

The graph form is the source model in float arithmetic; sums of binary32 round differently and ties may fall either way, hence the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.compiler import pipeline
from qcc.compiler.options import CompileOptions
from qcc.dialects import element_types, forms, shapes
from qcc.dialects.mlir import create, create_context, ir, walk
from qcc.passes.base import Stage, run_pipeline
from qcc.passes.values import make_constant, make_float_constant, retyped
from qcc.runtime.reference import interpreter
from test.tiers import draws

CONTEXT = create_context()
QUICK = draws(25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
Build = Callable[["Graph"], Any]


class Graph:
    """A function of quantized arguments under construction."""

    def __init__(self, data: st.DataObject, arguments: list[list[int]]) -> None:
        self.data, self.rng = data, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        self.module = ir.Module.create()
        kinds = [ir.RankedTensorType.get(shape, self.element()) for shape in arguments]
        self.function_type = ir.FunctionType.get(kinds, [])
        with ir.InsertionPoint(self.module.body):
            attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(self.function_type)}
            self.function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        self.block = self.function.regions[0].blocks.append(*kinds, arg_locs=[ir.Location.unknown()] * len(kinds))
        with ir.InsertionPoint(self.block):
            self.end = ir.Operation.create("func.return", operands=[])

    def element(self, least_bits: int = 2) -> Any:
        """A per-tensor activation type of 2 to 8 bits with any zero point."""
        bits, signed = self.data.draw(st.integers(least_bits, 8)), self.data.draw(st.booleans())
        low = -(1 << (bits - 1)) if signed else 0
        zero = self.data.draw(st.integers(low, low + (1 << bits) - 1))
        return element_types.affine_type(self.scale(), zero, bits=bits, signed=signed)

    def scale(self) -> float:
        return float(np.float32(self.data.draw(st.floats(0.01, 2.0))))

    def op(self, name: str, operands: list[Any], shape: list[int], **attributes: Any) -> Any:
        kind = ir.RankedTensorType.get(shape, ir.F32Type.get())
        return create(name, operands, [kind], attributes, ip=ir.InsertionPoint(self.end)).results[0]

    def real(self, value: Any) -> Any:
        return self.op("qcc.dequantize", [value], list(value.type.shape))

    def weight(self, shape: list[int]) -> Any:
        """A dequantized weight: 1 to 8 bits, per tensor or per output channel, symmetric or not."""
        bits, per_channel, signed = self.data.draw(st.integers(1, 8)), self.data.draw(st.booleans()), self.data.draw(st.booleans())
        low = -(1 << (bits - 1)) if signed else 0
        high = low + (1 << bits) - 1
        count = shape[0] if per_channel else 1
        scales, zeros = self.rng.uniform(0.01, 1.0, count), self.rng.integers(low, high + 1, count)
        if self.data.draw(st.booleans()):
            zeros = zeros * 0
        element = element_types.affine_type(
            scales if per_channel else scales[0],
            zeros if per_channel else zeros[0],
            bits=bits,
            signed=signed,
            axis=0 if per_channel else None,
        )
        stored = self.rng.integers(low, high + 1, shape).astype(np.int8 if signed else np.uint8)
        return self.real(make_constant(stored, element, self.end))

    def bias(self, channels: int) -> Any:
        if not self.data.draw(st.booleans()):
            return None
        return make_float_constant(self.rng.normal(0, 5, channels), self.end)

    def relu(self, value: Any) -> Any:
        if not self.data.draw(st.booleans()):
            return value
        top = self.data.draw(st.sampled_from([6.0, float("inf")]))
        return self.op("qcc.clamp", [value], list(value.type.shape), min=0.0, max=top)

    def finish(self, value: Any) -> None:
        """Quantize `value` to a new type and return it."""
        kind = retyped(value, self.element())
        self.returns(create("qcc.quantize", [value], [kind], ip=ir.InsertionPoint(self.end)).results[0])

    def returns(self, value: Any) -> None:
        with ir.InsertionPoint(self.end):
            ir.Operation.create("func.return", operands=[value])
        self.end.erase()
        kind = ir.FunctionType.get(list(self.function_type.inputs), [value.type])
        self.function.attributes["function_type"] = ir.TypeAttr.get(kind)
        assert self.module.operation.verify()

    def inputs(self) -> list[np.ndarray]:
        found = []
        for kind in self.function_type.inputs:
            a = element_types.affine(kind)
            assert a is not None
            found.append(self.rng.integers(a.qmin, a.qmax + 1, list(kind.shape)).astype(element_types.storage_dtype(kind)))
        return found


def _stages() -> list[Any]:
    return next(stages for name, stages in pipeline.forms(CompileOptions()) if name == "integer")


def check(data: st.DataObject, arguments: list[list[int]], build: Build, *, integer: tuple[str, ...], steps: int = 1) -> None:
    """Build a graph, run it in both forms and compare; the integer form must compute the operations `integer` on integers."""
    with CONTEXT, ir.Location.unknown():
        graph = Graph(data, arguments)
        build(graph)
        inputs = graph.inputs()
        (before,) = interpreter.run(graph.module, inputs)
        run_pipeline(graph.module, _stages())
        forms.check("integer", graph.module)
        tensors = [op for op in walk(graph.module) if op.name.startswith(("qcc.", "tensor."))]
        computed = {op.name for op in tensors if not isinstance(ir.RankedTensorType(op.results[0].type).element_type, ir.FloatType)}
        assert computed.issuperset(integer), str(graph.module)
        (after,) = interpreter.run(graph.module, inputs)
        run_pipeline(graph.module, [Stage("lower-requantize-to-fixed")])
        (fixed,) = interpreter.run(graph.module, inputs)
    difference = np.abs(before.astype(np.int64) - after.astype(np.int64))
    assert difference.max(initial=0) <= steps, (difference.max(), str(graph.module))
    assert np.abs(fixed.astype(np.int64) - after.astype(np.int64)).max(initial=0) <= 1, str(graph.module)


@QUICK
@given(st.data())
def test_conv2d(data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 3))
    inputs, outputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    kernel, strides, dilations = ([data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))] for _ in range(3))
    padding = [data.draw(st.integers(0, 2)) for _ in range(4)]
    x_shape = [
        data.draw(st.integers(1, 2)),
        groups * inputs,
        *(d * (k - 1) + data.draw(st.integers(1, 5)) for d, k in zip(dilations, kernel, strict=True)),
    ]
    w_shape = [groups * outputs, inputs, *kernel]

    def build(g: Graph) -> None:
        attributes = {"strides": strides, "padding": padding, "dilations": dilations, "groups": groups}
        x, w, b = g.real(g.block.arguments[0]), g.weight(w_shape), g.bias(w_shape[0])
        around = [data.draw(st.integers(0, 2)) for _ in range(4)]  # zeros by an operation of its own
        padded = [*x_shape[:2], x_shape[2] + around[0] + around[2], x_shape[3] + around[1] + around[3]]
        x = g.op("qcc.pad", [x], padded, low=[0, 0, *around[:2]], high=[0, 0, *around[2:]], value=0.0) if any(around) else x
        shape = shapes.conv2d(padded, w_shape, strides, padding, dilations)
        g.finish(g.relu(g.op("qcc.conv2d", [x, w, b], shape, **attributes)))

    check(data, [x_shape], build, integer=("qcc.conv2d",))


@QUICK
@given(st.data())
def test_linear_and_matmul_with_constant(data: st.DataObject) -> None:
    rows, k, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 5))

    def build(g: Graph) -> None:
        x = g.real(g.block.arguments[0])
        if data.draw(st.booleans()):
            y = g.op("qcc.linear", [x, g.weight([n, k]), g.bias(n)], [2, rows, n])
        else:
            turned = g.op("qcc.transpose", [g.weight([n, k])], [k, n], permutation=[1, 0])
            y = g.op("qcc.matmul", [x, turned], [2, rows, n])
            if (b := g.bias(n)) is not None:
                y = g.op("qcc.add", [y, b], [2, rows, n])
        g.finish(g.relu(y))

    check(data, [[2, rows, k]], build, integer=("qcc.linear",))


@QUICK
@given(st.data())
def test_matmul_of_two_activations(data: st.DataObject) -> None:
    m, k, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))

    def build(g: Graph) -> None:
        a, b = (g.real(v) for v in g.block.arguments)
        g.finish(g.op("qcc.matmul", [a, b], [3, 2, m, n]))

    check(data, [[3, 1, m, k], [2, k, n]], build, integer=("qcc.matmul", "qcc.requantize"))


@QUICK
@given(st.data())
def test_sums_and_products(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["qcc.add", "qcc.sub", "qcc.mul"]))
    shape = data.draw(st.sampled_from([[2, 3, 4], [3, 4], [1, 3, 1]]))

    def build(g: Graph) -> None:
        a, b = (g.real(v) for v in g.block.arguments)
        g.finish(g.relu(g.op(name, [a, b], [2, 3, 4])))

    check(data, [[2, 3, 4], shape], build, integer=(name,))


@QUICK
@given(st.data())
def test_pooling(data: st.DataObject) -> None:
    kernel, strides = ([data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))] for _ in range(2))
    padding = [data.draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)]
    average = data.draw(st.booleans())
    x_shape = [2, 3, 5, 6]

    def build(g: Graph) -> None:
        shape = [2, 3, *shapes.window2d(x_shape[2:], kernel, strides, padding, [1, 1])]
        window: dict[str, Any] = {"kernel": kernel, "strides": strides, "padding": padding}
        window |= {"count_include_pad": data.draw(st.booleans())} if average else {"dilations": [1, 1]}
        y = g.op("qcc.avg_pool2d" if average else "qcc.max_pool2d", [g.real(g.block.arguments[0])], shape, **window)
        g.finish(g.relu(y))

    check(data, [x_shape], build, integer=("qcc.avg_pool2d",) if average else ("qcc.max_pool2d",))


@QUICK
@given(st.data())
def test_reductions(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from([[2, 3], [1], [1, 2], [3], [0, 1, 2, 3]]))
    kind = data.draw(st.sampled_from(["mean", "sum"]))

    def build(g: Graph) -> None:
        shape = [1 if i in axes else n for i, n in enumerate([2, 3, 4, 5])]
        g.finish(g.op("qcc.reduce", [g.real(g.block.arguments[0])], shape, kind=kind, axes=axes, keepdims=True))

    check(data, [[2, 3, 4, 5]], build, integer=("qcc.avg_pool2d",))


@QUICK
@given(st.data())
def test_functions_become_tables(data: st.DataObject) -> None:
    kind = data.draw(
        st.sampled_from(["gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "exp", "abs", "hardswish", "leaky_relu", "sqrt", "neg"])
    )

    def build(g: Graph) -> None:
        x = g.real(g.block.arguments[0])
        y = g.op("qcc.unary", [x], [3, 4], kind=kind)
        y = g.op("qcc.add", [y, x], [3, 4]) if data.draw(st.booleans()) else y
        g.finish(y)

    check(data, [[3, 4]], build, integer=("qcc.lut",))


@QUICK
@given(st.data())
def test_movement_and_concatenation(data: st.DataObject) -> None:
    def build(g: Graph) -> None:
        a, b = (g.real(v) for v in g.block.arguments)
        t = g.op("qcc.transpose", [a], [4, 2, 3], permutation=[2, 0, 1])
        p = g.op("qcc.pad", [t], [5, 4, 3], low=[1, 0, 0], high=[0, 2, 0], value=0.0)
        s = g.op("qcc.slice", [p], [5, 2, 3], offsets=[0, 1, 0], strides=[1, 2, 1])
        kind = ir.RankedTensorType.get([10, 2, 3], ir.F32Type.get())
        c = ir.Operation.create(
            "tensor.concat",
            operands=[s, b],
            results=[kind],
            attributes={"dim": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), 0)},
            ip=ir.InsertionPoint(g.end),
        ).results[0]
        g.finish(g.relu(c))

    check(data, [[2, 3, 4], [5, 2, 3]], build, integer=("tensor.concat", "qcc.slice"))
