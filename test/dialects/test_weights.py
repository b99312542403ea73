"""Constants go into attributes and come out again with the same bytes, dtype and shape."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir, parse_module, walk

DTYPES = [
    *(np.dtype(t) for t in "bool i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8".split()),
    *(
        np.dtype(getattr(ml_dtypes, name))
        for name in "bfloat16 float8_e4m3fn float8_e5m2 float6_e2m3fn float6_e3m2fn float4_e2m1fn float8_e8m0fnu".split()
    ),
]
SHAPES = [(), (0,), (1,), (3,), (2, 3), (8,), (9,), (64,), (65,), (5, 1, 40), (0, 100)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pattern", ["splat", "bytes"])
def test_every_dtype_and_shape_comes_back(dtype: np.dtype, pattern: str) -> None:
    rng = np.random.default_rng(0)
    with create_context(), ir.Location.unknown():
        for shape in SHAPES:
            count = int(np.prod(shape))
            if pattern == "splat":
                array = np.ones(shape, dtype)
            elif dtype.kind in "iu":
                array = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, count, dtype, endpoint=True).reshape(shape)
            else:
                array = (rng.integers(0, 3, count) - (dtype.kind == "f")).astype(np.float32).astype(dtype).reshape(shape)
            found = weights.array_of(weights.constant_attribute(array))
            assert found.dtype == array.dtype and found.shape == array.shape
            assert found.tobytes() == array.tobytes(), shape
            assert not found.flags.writeable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dense<[1, -2, 7]> : tensor<3xi4>", np.array([1, -2, 7], np.int8)),
        ("dense<[1, 2, 15]> : tensor<3xui4>", np.array([1, 2, 15], np.uint8)),
        ("dense<[-1, 0, 1]> : tensor<3xsi2>", np.array([-1, 0, 1], np.int8)),
        ("dense<[[1, 2], [3, -4]]> : tensor<2x2xi12>", np.array([[1, 2], [3, -4]], np.int16)),
        ("dense<[true, false]> : tensor<2xi1>", np.array([True, False])),
        ("dense<true> : tensor<3xi1>", np.array([True] * 3)),
        ('dense<"0x0102FF"> : tensor<3xi8>', np.array([1, 2, -1], np.int8)),
        ("dense<[]> : tensor<0xi8>", np.array([], np.int8)),
        ("dense<-3> : tensor<i32>", np.array(-3, np.int32)),
        ("dense<[1.5, 0x7F80]> : tensor<2xbf16>", np.array([1.5, np.inf], ml_dtypes.bfloat16)),
        ("dense<[0x7F800000, -2.5]> : tensor<2xf32>", np.array([np.inf, -2.5], np.float32)),
        ("dense<[0.5, 1.5]> : tensor<2xf4E2M1FN>", np.array([0.5, 1.5], ml_dtypes.float4_e2m1fn)),
        ("dense<[1, 2]> : tensor<2xindex>", np.array([1, 2])),
    ],
)
def test_attributes_written_by_hand(text: str, expected: np.ndarray) -> None:
    with create_context():
        found = weights.array_of(ir.Attribute.parse(text))
    assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes() and found.shape == expected.shape


def test_a_large_dense_constant_of_a_type_without_buffer_protocol() -> None:
    values = (np.arange(300) - 150).astype(ml_dtypes.bfloat16)
    text = f'dense<"0x{values.tobytes().hex()}"> : tensor<300xbf16>'
    with create_context():
        assert np.array_equal(weights.array_of(ir.Attribute.parse(text)), values)


def _printed(array: np.ndarray, name: str = "") -> str:
    """Text of a module that holds `array` as the attribute of one constant."""
    with create_context(), ir.Location.unknown():
        module = ir.Module.create()
        attribute = weights.constant_attribute(array, name)
        with ir.InsertionPoint(module.body):
            ir.Operation.create("arith.constant", results=[attribute.type], attributes={"value": attribute})
        return str(module)


def _values(module: ir.Module) -> list[np.ndarray]:
    return [weights.array_of(op.attributes["value"]) for op in walk(module, "arith.constant")]


def test_resources_of_module_text_are_read() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    text = _printed(array, "layer1.weight")
    assert "dense_resource<layer1.weight_" in text
    (found,) = _values(parse_module(text, create_context()))
    assert np.array_equal(found, array)


def test_two_modules_with_the_same_keys_in_one_context_keep_their_own_contents() -> None:
    first, second = _printed(np.arange(100), "w"), _printed(np.arange(100) * 3, "w")
    key = first.split("dense_resource<")[1].split(">")[0]
    second = second.replace(second.split("dense_resource<")[1].split(">")[0], key)
    context = create_context()
    modules = [parse_module(first, context), parse_module(second, context)]
    assert np.array_equal(_values(modules[0])[0], np.arange(100))
    assert np.array_equal(_values(modules[1])[0], np.arange(100) * 3)


def test_a_new_key_is_never_one_that_the_same_text_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_counter", itertools.count())  # so that the first candidates are w_0, w_1, ...
    text = "\n".join(f'"test.op"() {{value = dense_resource<{key}> : tensor<1xi8>}} : () -> ()' for key in ("w", "w_0", "w_1"))
    blobs = ", ".join(f'{key}: "0x010000000{number}"' for number, key in enumerate(("w", "w_0", "w_1")))
    text += "\n{-# dialect_resources: { builtin: { " + blobs + " } } #-}"
    context = create_context()
    context.allow_unregistered_dialects = True
    modules = [parse_module(text, context) for _ in range(2)]
    for module in modules:
        assert [int(weights.array_of(op.attributes["value"])[0]) for op in walk(module, "test.op")] == [0, 1, 2]


def test_quoted_resource_keys() -> None:
    text = """
    func.func @main() -> tensor<2xf32> {
      %0 = arith.constant dense_resource<"a key: \\22x\\22"> : tensor<2xf32>
      return %0 : tensor<2xf32>
    }
    {-# dialect_resources: { builtin: { "a key: \\22x\\22": "0x040000000000803F00000040" } } #-}
    """
    (found,) = _values(parse_module(text, create_context()))
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        ("0x03000000FFFFFFFF", "resource 'w' is damaged: expected a 4-byte alignment"),
        ("0x0400", "resource 'w' is damaged"),
        ("0x04000000FFFFFF", "resource 'w' has 3 bytes, expected 8 for tensor<2xf32>"),
    ],
)
def test_damaged_resources_are_named(blob: str, message: str) -> None:
    text = f"""
    func.func @main() {{
      %0 = arith.constant dense_resource<w> : tensor<2xf32>
      return
    }}
    {{-# dialect_resources: {{ builtin: {{ w: "{blob}" }} }} #-}}
    """
    with pytest.raises(QccError, match=message):
        _values(parse_module(text, create_context()))


def test_an_elided_resource_says_how_to_print_the_module() -> None:
    text = "func.func @main() { %0 = arith.constant dense_resource<__elided__> : tensor<2xf32> return }"
    with pytest.raises(QccError, match="print the module without eliding resources"):
        _values(parse_module(text, create_context()))
