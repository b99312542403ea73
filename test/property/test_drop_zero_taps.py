"""Convolutions with zero taps give the same integers (and floats) after `drop-zero-taps`: strides, dilations, paddings, groups."""

from __future__ import annotations

import numpy as np
import pytest

from qcc.dialects import element_types, shapes
from qcc.dialects.mlir import create, create_context, ir, parse_module, to_attribute, walk
from qcc.passes.base import PassContext, make_pass
from qcc.passes.values import make_constant, shape_of
from qcc.runtime.reference import interpreter

CONTEXT = create_context()


@pytest.mark.parametrize("seed", range(40))
def test_same_results(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depthwise, real = seed % 4 == 3, seed % 5 == 4
    channels, kernel = int(rng.integers(2, 6)), [int(v) for v in rng.integers(1, 5, 2)]
    outputs = channels if depthwise else int(rng.integers(1, 6))
    groups = channels if depthwise else 1
    strides, dilations = ([int(v) for v in rng.integers(1, 3, 2)] for _ in range(2))
    padding = [int(v) for v in rng.integers(0, 3, 4)]
    zero = 0 if real else int(rng.integers(-3, 4))
    weights = rng.integers(-8, 8, (outputs, channels // groups, *kernel)).astype(np.float32 if real else np.int8)
    if seed % 2 and not depthwise:  # one tap per input channel
        taps = rng.integers(0, kernel[0] * kernel[1], channels)
        weights[:, np.arange(kernel[0] * kernel[1]).reshape(1, *kernel) != taps.reshape(-1, 1, 1)] = zero
    else:
        weights[:, :, : rng.integers(kernel[0] + 1)] = zero
        weights[..., kernel[1] - rng.integers(kernel[1]) :] = zero
    with CONTEXT, ir.Location.unknown():
        element = ir.F32Type.get() if real else element_types.affine_type(0.5, 7, signed=False)
        x = ir.RankedTensorType.get([1, channels, 9, 8], element)
        size = shapes.conv2d(list(x.shape), list(weights.shape), strides, padding, dilations)
        y = ir.RankedTensorType.get(size, ir.F32Type.get() if real else ir.IntegerType.get_signless(32))
        module = parse_module(
            f"func.func @main(%x: {x}) -> {y} {{ %y = builtin.unrealized_conversion_cast %x : {x} to {y} return %y : {y} }}", CONTEXT
        )
        cast = next(walk(module, "builtin.unrealized_conversion_cast"))
        w = make_constant(weights, element if real else element_types.affine_type(0.5, zero, bits=4), cast)
        attributes = {k: to_attribute(v) for k, v in {"strides": strides, "padding": padding, "dilations": dilations}.items()}
        operands = [cast.operands[0], w]
        conv = create("qcc.conv2d", operands, [y], {**attributes, "groups": groups}, ip=ir.InsertionPoint(cast))
        cast.results[0].replace_all_uses_with(conv.results[0])
        cast.erase()
        given = rng.standard_normal(x.shape).astype(np.float32) if real else rng.integers(0, 256, x.shape).astype(np.uint8)
        expected = interpreter.run(module, [given])[0]
        context = PassContext()
        make_pass("drop-zero-taps", "outputs=1").run(module, context)
        module.operation.verify()
        np.testing.assert_array_equal(interpreter.run(module, [given])[0], expected)
        if seed % 2 and not depthwise and not np.all(weights == zero):
            sizes = [shape_of(op.operands[1]) for op in walk(module, "qcc.conv2d")]
            assert sizes[-1][2:] == [1, 1], "one tap per channel needs no larger kernel"
