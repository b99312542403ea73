"""Recognition never changes a value, finds what is there, and leaves alone what is not."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
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


NF4 = np.array([-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105003, 0, 0.0795803, 0.1609302, 0.2461123,
                0.33791524, 0.44070983, 0.562617, 0.72295684, 1], F32)  # fmt: skip
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6], F32)


def drawn(table: np.ndarray) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda rng, shape: table[rng.integers(0, table.size, shape)]


def zeros_in_groups(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """4-bit numbers with a zero point of their own along the last axis."""
    return rng.integers(0, 16, shape) - rng.integers(0, 16, (*shape[:-1], 1))


def fp8(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_normal(shape) * 20).astype(ml_dtypes.float8_e4m3fn).astype(F32)


GROUPED: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], int, str, int]] = {
    "GPTQ": (drawn(np.arange(-8, 8)), 128, "4-bit integers, scale per group of 128", 4),
    "AWQ": (zeros_in_groups, 64, "4-bit integers, scale and zero point per group of 64", 4),
    "3 bits, pruned": (drawn(np.array([0] * 8 + list(range(-3, 4)))), 32, "3-bit integers, scale per group of 32", 3),
    "NF4": (drawn(NF4), 64, "codebook of 16 levels, scale per group of 64", 4),
    "MXFP4": (drawn(FP4), 32, "FP4, scale per group of 32", 4),
    "NVFP4": (drawn(FP4), 16, "FP4, scale per group of 16", 4),
    "ternary": (drawn(np.array([-1, 0, 1])), 64, "ternary, scale per group of 64", 2),
    "binary": (drawn(np.array([-1, 1])), 32, "binary, scale per group of 32", 1),
    "FP8 of 128 x 128": (fp8, 128, "FP8 E4M3, scale per group of 128", 8),
    "FP8 per channel": (fp8, 512, "FP8 E4M3, scale per channel", 8),
    "NF4 per channel": (drawn(NF4), 512, "codebook of 16 levels, scale per channel", 4),
    "int4 with zero points per channel": (zeros_in_groups, 512, "4-bit integers, scale and zero point per channel", 4),
}


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("seed", range(3))
def test_a_scale_per_group(name: str, seed: int) -> None:
    """What tools for language models leave behind, dequantized to plain floats."""
    make, size, words, bits = GROUPED[name]
    rng = np.random.default_rng(seed)
    groups = make(rng, (24, 512 // size, size)).astype(F32) * rng.uniform(0.01, 0.2, (24, 512 // size, 1)).astype(F32)
    assert check(groups.reshape(24, 512)) == (words, bits)
    check(np.where(np.arange(groups.size).reshape(groups.shape) == 1234, F32(0.0123), groups).reshape(24, 512))
    near = groups * rng.choice(np.array([1, 1 + 2**-20], F32), groups.shape)
    assert check(near.reshape(24, 512)) == ("", 32)


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
