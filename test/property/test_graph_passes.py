"""The graph passes keep real values: batch normalisation, biases, transposed weights and folded constants, before and after."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.dialects import element_types
from qcc.dialects.mlir import create, create_context, ir, walk
from qcc.passes.base import parse_pipeline, run_pipeline
from qcc.passes.values import make_constant, make_float_constant
from qcc.runtime.reference import interpreter
from test.tiers import draws

CONTEXT = create_context()
QUICK = draws(25, suppress_health_check=[HealthCheck.too_slow])
PASSES = "fold-constants,convert-matmul-to-linear,fold-constants,fold-bias,fold-batch-norm,fold-bias,cse"


class Model:
    """A function of one float argument under construction."""

    def __init__(self, data: st.DataObject, shape: list[int]) -> None:
        self.data, self.rng, self.shape = data, np.random.default_rng(data.draw(st.integers(0, 1 << 32))), shape
        self.module = ir.Module.create()
        self.kind = ir.RankedTensorType.get(shape, ir.F32Type.get())
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(ir.FunctionType.get([self.kind], []))}
        with ir.InsertionPoint(self.module.body):
            self.function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        self.block = self.function.regions[0].blocks.append(self.kind, arg_locs=[ir.Location.unknown()])
        with ir.InsertionPoint(self.block):
            self.end = ir.Operation.create("func.return", operands=[])

    def op(self, name: str, operands: list[ir.Value], shape: list[int], **attributes: object) -> ir.Value:
        kind = ir.RankedTensorType.get(shape, ir.F32Type.get())
        return create(name, operands, [kind], attributes, ip=ir.InsertionPoint(self.end)).results[0]

    def real(self, shape: list[int]) -> ir.Value:
        return make_float_constant(self.rng.normal(size=shape), self.end)

    def weight(self, shape: list[int], axis: int) -> ir.Value:
        """Float, or dequantized per tensor or along `axis`, symmetric or not."""
        if self.data.draw(st.booleans()):
            return self.real(shape)
        per_channel, count = self.data.draw(st.booleans()), shape[axis]
        zeros = self.rng.integers(-4, 5, count) * self.data.draw(st.integers(0, 1))
        scales = self.rng.uniform(0.01, 0.1, count)
        element = element_types.affine_type(
            scales if per_channel else scales[0], zeros if per_channel else zeros[0], axis=axis if per_channel else None
        )
        stored = self.rng.integers(-100, 101, shape).astype(np.int8)
        return self.op("qcc.dequantize", [make_constant(stored, element, self.end)], shape)

    def finish(self, value: ir.Value) -> tuple[np.ndarray, np.ndarray]:
        """The function's result before and after the passes."""
        with ir.InsertionPoint(self.end):
            ir.Operation.create("func.return", operands=[value])
        self.end.erase()
        self.function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get([self.kind], [value.type]))
        assert self.module.operation.verify()
        x = self.rng.normal(size=self.shape).astype(np.float32)
        before = interpreter.run(self.module, [x])[0]
        run_pipeline(self.module, parse_pipeline(PASSES))
        return before, interpreter.run(self.module, [x])[0]


@QUICK
@given(st.data())
def test_batch_normalisation(data: st.DataObject) -> None:
    with CONTEXT, ir.Location.unknown():
        m = Model(data, [2, 4, 5, 5])
        groups, channels = data.draw(st.sampled_from([1, 2, 4])), 8
        w = m.weight([channels, 4 // groups, 3, 3], 0)
        bias = m.real([channels]) if data.draw(st.booleans()) else None
        window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilations": [1, 1], "groups": groups}
        y = m.op("qcc.conv2d", [m.block.arguments[0], w, bias], [2, channels, 5, 5], **window)
        shared = data.draw(st.booleans())
        variance = make_float_constant(m.rng.uniform(0.1, 2.0, channels), m.end)
        z = m.op("qcc.batch_norm", [y, *(m.real([channels]) for _ in range(3)), variance], [2, channels, 5, 5], epsilon=1e-5)
        z = m.op("qcc.add", [z, y], [2, channels, 5, 5]) if shared else z
        before, after = m.finish(z)
        np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4)
        names = [op.name for op in walk(m.module)]
        assert "qcc.batch_norm" not in names
        assert shared or "qcc.mul" not in names or "qcc.dequantize" in names  # only a stored -128 or a zero point may stand in the way


@QUICK
@given(st.data())
def test_matmul_with_constant(data: st.DataObject) -> None:
    k, n = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    with CONTEXT, ir.Location.unknown():
        m = Model(data, [2, 3, k])
        stored_as = data.draw(st.sampled_from(["k n", "n k", "1 k n"]))
        match stored_as:
            case "k n":
                w = m.weight([k, n], 1)
            case "n k":
                w = m.op("qcc.transpose", [m.weight([n, k], 0)], [k, n], permutation=[1, 0])
            case _:
                w = m.weight([1, k, n], 2)
        y = m.op("qcc.matmul", [m.block.arguments[0], w], [2, 3, n])
        bias = m.real(data.draw(st.sampled_from([[n], [1, 1, n], [1]])))
        before, after = m.finish(m.op(data.draw(st.sampled_from(["qcc.add", "qcc.sub"])), [y, bias], [2, 3, n]))
        np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)
        names = [op.name for op in walk(m.module)]
        assert "qcc.linear" in names
        assert not {"qcc.matmul", "qcc.transpose", "qcc.add", "qcc.sub"} & set(names)


@QUICK
@given(st.data())
def test_constants(data: st.DataObject) -> None:
    """A chain of movements and arithmetic on constants is one constant, in the same bits."""
    with CONTEXT, ir.Location.unknown():
        m = Model(data, [4, 3])
        value, shape = m.real([3, 4]), [3, 4]
        for _ in range(data.draw(st.integers(1, 4))):
            match data.draw(st.sampled_from(["transpose", "add", "mul", "div", "clamp", "slice"])):
                case "transpose":
                    shape = shape[::-1]
                    value = m.op("qcc.transpose", [value], shape, permutation=[1, 0])
                case "clamp":
                    value = m.op("qcc.clamp", [value], shape, min=-0.5, max=1.0)
                case "slice":
                    value = m.op("qcc.slice", [value], shape, offsets=[0, 0], strides=[1, 1])
                case name:
                    value = m.op(f"qcc.{name}", [value, m.real(data.draw(st.sampled_from([shape, [1], [shape[1]]])))], shape)
        before, after = m.finish(value)
        np.testing.assert_array_equal(before, after)
        assert [op.name for op in walk(m.module) if op.name.startswith("qcc.")] == ["qcc.constant"]
