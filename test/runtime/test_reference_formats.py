"""Element types against formulas written out by hand and against ml_dtypes."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, minifloat
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir
from qcc.runtime.reference import formats

ONE = np.ones(1, np.float32)
BUILTIN = {  # ml_dtypes name -> exponent bits, mantissa bits, bias, special values
    "float8_e4m3fn": (4, 3, 7, "fn"),
    "float8_e5m2": (5, 2, 15, "ieee"),
    "float8_e3m4": (3, 4, 3, "ieee"),
    "float6_e2m3fn": (2, 3, 1, "none"),
    "float6_e3m2fn": (3, 2, 3, "none"),
    "float4_e2m1fn": (2, 1, 1, "none"),
}


@pytest.fixture(autouse=True)
def context() -> Iterator[None]:
    with create_context(), ir.Location.unknown():
        yield


def tensor(shape: list[int], element: ir.Type) -> ir.RankedTensorType:
    """The type as it comes back from its own text."""
    return ir.RankedTensorType(ir.Type.parse(str(ir.RankedTensorType.get(shape, element))))


@pytest.mark.parametrize("name", BUILTIN)
def test_minifloats_equal_ml_dtypes(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    d = types.Minifloat(*BUILTIN[name], ONE)
    codes = np.arange(1 << d.bits).astype(np.uint8)
    values = codes.view(dtype).astype(np.float32)
    assert np.array_equal(minifloat.decode(codes, d), values, equal_nan=True)
    rng = np.random.default_rng(0)
    finite = np.sort(values[np.isfinite(values)])
    between = (finite[1:] + finite[:-1]) / 2  # ties
    x = np.concatenate([finite, between, (rng.standard_normal(5000) * np.exp2(rng.integers(-12, 12, 5000))).astype(np.float32)])
    expected = np.clip(x, finite.min(), finite.max()).astype(dtype).astype(np.float32)
    assert np.array_equal(minifloat.decode(minifloat.encode(x, d), d), expected)


@pytest.mark.parametrize("exponent", [1, 2, 5, 8])
@pytest.mark.parametrize("mantissa", [0, 1, 7])
def test_minifloats_of_any_width_encode_to_the_nearest(exponent: int, mantissa: int) -> None:
    d = types.Minifloat(exponent, mantissa, max((1 << exponent - 1) - 1, (1 << exponent) - 128), "none", ONE)
    kind = tensor([1 << d.bits], types.make_type(d))
    element_types.verify(kind)
    codes = np.arange(1 << d.bits).astype(element_types.storage_dtype(kind))
    values = formats.decode(codes, kind)
    assert np.array_equal(np.sort(values[: values.size // 2]), values[: values.size // 2])  # codes ascend with magnitude
    assert np.array_equal(formats.encode(values, kind), codes)


def test_special_values_of_minifloats() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)
    for special, expected in {"none": [0, 15.5, -15.5, 15.5], "fn": [np.nan, 15, -15, 15], "ieee": [np.nan, 7.75, -7.75, 7.75]}.items():
        d = types.Minifloat(3, 4, 4, special, ONE)
        assert np.array_equal(minifloat.decode(minifloat.encode(x, d), d), np.float32(expected), equal_nan=True), special


def test_binary_and_ternary() -> None:
    x = np.array([[0.2, -0.4, 0.0], [3, -3, 0.6]], np.float32)
    binary = tensor([2, 3], types.make_type(types.Binary(np.float32([[0.5], [2]]))))
    assert formats.decode(formats.encode(x, binary), binary).tolist() == [[0.5, -0.5, 0.5], [2, -2, 2]]
    ternary = tensor([2, 3], types.make_type(types.Ternary(np.float32([0.5]), np.float32([1.0]))))
    assert formats.decode(formats.encode(x, ternary), ternary).tolist() == [[0, -0.5, 0], [1, -0.5, 1]]
    assert not element_types.has_integers(ternary)
    with pytest.raises(QccError, match="has no zero, so its tensors cannot be sparse"):
        formats.zero(binary)


def test_log2_rounds_in_the_logarithm() -> None:
    kind = tensor([9], types.make_type(types.Log2(4, True, -3, ONE)))  # powers -3 .. 3
    x = np.array([1.0, 1.41, 1.42, -0.09, 0.08, 0.0, 100, -np.inf, np.nan], np.float32)
    stored = formats.encode(x, kind)
    assert formats.decode(stored, kind).tolist() == [1, 1, 2, -0.125, 0, 0, 8, -8, 0]
    assert formats.integers(stored, kind).tolist() == [8, 8, 16, -1, 0, 0, 64, -64, 0]
    unsigned = tensor([9], types.make_type(types.Log2(2, False, 0, ONE)))
    assert formats.decode(formats.encode(x, unsigned), unsigned).tolist() == [1, 1, 2, 0, 0, 0, 4, 0, 0]


def test_codebooks_per_tensor_and_per_group() -> None:
    levels = np.float32([[[-1, 0, 1, 2]], [[-8, -4, 0, 4]]])  # [2, 1, 4]: one table per row
    kind = tensor([2, 3], types.make_type(types.Codebook(levels, np.float32([[1], [0.5]]))))
    stored = formats.encode(np.float32([[0.4, 0.6, 9], [-9, -2.1, 0.1]]), kind)
    assert stored.tolist() == [[1, 2, 3], [0, 1, 2]]
    assert formats.decode(stored, kind).tolist() == [[0, 1, 2], [-4, -2, 0]]
    assert formats.zero(kind).tolist() == [[1], [2]]


def test_scaled_floats_saturate() -> None:
    kind = tensor([4], types.make_type(types.Scaled(ir.Type.parse("f8E4M3FN"), np.float32([0.5]))))
    stored = formats.encode(np.float32([1, 1e9, -1e9, np.nan]), kind)
    assert np.array_equal(formats.decode(stored, kind), np.float32([1, 224, -224, np.nan]), equal_nan=True)


@pytest.mark.parametrize("element", ["f8E4M3FN", "f8E5M2", "f6E2M3FN", "f6E3M2FN", "f4E2M1FN", "i8"])
def test_microscaling_blocks(element: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32) * np.float32([[1e-3], [1], [1e3]])
    d = formats.microscale(x, ir.Type.parse(element), [1, 32])
    kind = tensor([3, 64], types.make_type(d))
    element_types.verify(kind)
    y = formats.decode(formats.encode(x, kind), kind)
    mantissa = {"f8E4M3FN": 3, "f8E5M2": 2, "f6E2M3FN": 3, "f6E3M2FN": 2, "f4E2M1FN": 1, "i8": 6}[element]
    greatest = np.abs(x.reshape(3, 2, 32)).max(axis=2, keepdims=True).repeat(32, 2).reshape(3, 64)
    inside = np.abs(x) < greatest * 0.5  # greater ones may saturate under the power-of-two scale
    assert (np.abs(y - x) <= greatest * 2.0**-mantissa)[inside].all()
    scale = d.scales.astype(np.float32)
    assert np.array_equal(np.log2(scale), np.rint(np.log2(scale)))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 16])
def test_affine_groups(bits: int, signed: bool) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    scales = np.float32([[0.5, 0.25], [1, 2], [3, 4]])
    zeros = np.array([[low, high], [0, low], [high, 0]])
    kind = tensor([3, 8], element_types.affine_type(scales, zeros, bits=bits, signed=signed, block={0: 1, 1: 4}))
    found = element_types.affine(kind)
    assert found is not None and np.array_equal(found.scales, scales) and np.array_equal(found.zero_points, zeros)
    stored = np.random.default_rng(0).integers(low, high, (3, 8), endpoint=True).astype(element_types.storage_dtype(kind))
    real = formats.decode(stored, kind)
    for r, c in np.ndindex(3, 8):
        assert real[r, c] == np.float32(int(stored[r, c]) - int(zeros[r, c // 4])) * scales[r, c // 4]
    assert np.array_equal(formats.encode(real, kind), stored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "scale is 0.0, expected a positive finite number"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": 1.0, "qmin": 5, "qmax": 4}, r"range is 5\.\.4, expected an ascending range within -128\.\.127"),
        ({"scale": 1.0, "zero_point": 200}, r"zero point is 200, expected -128\.\.127"),
    ],
)
def test_affine_parameters_out_of_range_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(QccError, match=message):
        element_types.affine_type(**arguments)  # type: ignore[arg-type]


def test_integers_times_scale_are_the_real_values() -> None:
    rng = np.random.default_rng(0)
    for d in [
        types.Binary(np.float32([[0.5], [2]])),
        types.Ternary(ONE * 3, ONE * 3),
        types.Log2(4, True, -6, np.float32([[1, 2]])),
        types.Codebook(np.int8([-7, 0, 3, 100]), np.float32([[0.5], [2]])),
    ]:
        kind = tensor([2, 6], types.make_type(d))
        stored = formats.encode(rng.standard_normal((2, 6)).astype(np.float32), kind)
        assert np.array_equal(formats.integers(stored, kind).astype(np.float32) * formats.integer_scale(kind), formats.decode(stored, kind))
