"""Recognition never changes a value, finds what is there, and leaves alone what is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects import element_types, weights
from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.dialects.real_values import decode
from qcc.passes.base import PassContext, make_pass
from qcc.passes.values import make_constant
from qcc.runtime.reference import interpreter
from test.tiers import draws

CONTEXT = create_context()
F32 = np.float32


def recognized(stored: np.ndarray, element: str, *, dequantized: bool = False) -> tuple[str, np.ndarray, int]:
    """What the pass says of a linear layer's weights [o, n], their real values afterwards, and their bits."""
    o, n = stored.shape
    with CONTEXT, ir.Location.unknown():
        w, x, y = f"tensor<{o}x{n}xf32>", f"tensor<1x{n}xf32>", f"tensor<1x{o}xf32>"
        kind = f"tensor<{o}x{n}x{element}>"
        module = parse_module(
            f"""func.func @main(%x: {x}, %c: {kind}) -> {y} {{
              %w = {f'"qcc.dequantize"(%c) : ({kind}) -> {w}' if dequantized else f"builtin.unrealized_conversion_cast %c : {kind} to {w}"}
              %y = "qcc.linear"(%x, %w) : ({x}, {w}) -> {y} loc("layer")
              return %y : {y} }}""",
            CONTEXT,
        )
        first = next(op for op in walk(module) if op.name in ("qcc.dequantize", "builtin.unrealized_conversion_cast"))
        constant = make_constant(stored, ir.Type.parse(element), first)
        if dequantized:
            first.operands[0] = constant
        else:
            first.results[0].replace_all_uses_with(constant)
            first.erase()
        context = PassContext()
        make_pass("recognize-formats").run(module, context)
        module.operation.verify()
        found = next(walk(module, "qcc.constant"))
        type_of = ir.RankedTensorType(found.results[0].type)
        real = decode(weights.array_of(found.attributes["value"]), type_of)
        probe = np.zeros((1, n), F32)
        held = np.zeros(stored.shape, element_types.storage_dtype(ir.RankedTensorType.get([o, n], ir.Type.parse(element))))
        assert interpreter.run(module, [probe, held])[0].shape == (1, o)
        return context.facts.get("layer", {}).get("recognized", ""), real, element_types.bits_of(type_of)


def check(values: np.ndarray) -> tuple[str, int]:
    words, real, bits = recognized(values, "f32")
    np.testing.assert_array_equal(real, values)
    return words, bits


@draws(60)
@given(st.data())
def test_integers_times_a_scale_are_found(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    bits, shape = data.draw(st.integers(2, 8)), data.draw(st.sampled_from([(4, 64), (16, 9), (32, 200)]))
    per_channel, density = data.draw(st.booleans()), data.draw(st.sampled_from([1.0, 0.6]))
    k = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape).astype(F32)
    k[:, :2] = (1 << (bits - 1)) - 1, 1
    k[:, 2:] *= rng.random((shape[0], shape[1] - 2)) < density
    scale = (rng.random((shape[0], 1) if per_channel else (1, 1)) + 0.01).astype(F32)
    words, found = check(k * scale)
    assert found <= bits and "codebook" not in words, words


@pytest.mark.parametrize("seed", range(10))
def test_levels_and_powers_of_two(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (16, 96)
    scale = (rng.random((16, 1)) + 0.01).astype(F32)
    signs = np.where(rng.random(shape) < 0.5, F32(-1), F32(1))
    assert check(signs * scale) == ("binary, scale per channel", 1)
    assert check(signs * F32(0.37)) == ("binary, scale per tensor", 1)
    assert check(rng.integers(-1, 2, shape).astype(F32) * scale) == ("ternary, scale per channel", 2)
    assert check(np.array([-0.31, 0, 0.17], F32)[rng.integers(0, 3, shape)]) == ("ternary, two scales per tensor", 2)
    powers = signs * (2.0 ** rng.integers(-9, -2, shape)).astype(F32) * F32(1.3)
    assert check(powers) == ("powers of two, 4 bits per tensor", 4)
    table = rng.standard_normal(16).astype(F32)
    assert check(table[rng.integers(0, 16, shape)]) == ("codebook of 16 levels per tensor", 4)
    rows = np.take_along_axis(rng.standard_normal((16, 8)).astype(F32), rng.integers(0, 8, shape), 1)
    assert check(rows)[0] in ("codebook of 8 levels per channel", "codebook of 128 levels per tensor")
    assert check(rng.standard_normal(shape).astype(F32)) == ("", 32)
    assert check(rng.standard_normal(shape).astype(F32) * (rng.random(shape) < 0.1)) == ("", 32)


@draws(40)
@given(st.data())
def test_narrow_integers_in_a_container(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    bits, factor = data.draw(st.integers(2, 5)), data.draw(st.sampled_from([1, 2, 4, 7]))
    shape = (8, 40)
    k = rng.integers(1 - (1 << (bits - 1)), 1 << (bits - 1), shape)
    k[:, :2] = (1 << (bits - 1)) - 1, 1
    element = "!quant.uniform<i8:f32, 0.25>" if data.draw(st.booleans()) else f"!quant.uniform<i8:f32:0, {{{','.join(['0.5'] * 8)}}}>"
    words, real, found = recognized((k * factor).astype(np.int8), element, dequantized=True)
    assert found == bits and words.endswith("in a container of 8 bits"), words
    np.testing.assert_array_equal(real, (k * factor * (0.25 if "f32," in element else 0.5)).astype(F32))
