"""Random parameters of element types and encodings: a type with a meaning, or an error in words."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.compressed_types import describe
from qcc.dialects.element_types import bits_of, storage_dtype, stored_range
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, parse_module
from qcc.dialects.qcc import Qcc
from qcc.runtime.reference import interpreter
from test.tiers import draws

CONTEXT = create_context()
NUMBERS = st.sampled_from(
    ["0", "1", "2", "4", "7", "9", "-1", "-126", "200", "4096", "1.5 : f32", "true", "false", '"none"', '"fn"', '"x"', "unit"]
)
ELEMENTS = st.sampled_from(
    [
        "dense<1.0> : tensor<1xf32>",
        "dense<[[0.5], [2.0]]> : tensor<2x1xf32>",
        "dense<[[0.5, 1.0], [2.0, 3.0]]> : tensor<2x2xf32>",
        "dense<0.0> : tensor<1xf32>",
        "dense<-1.0> : tensor<1xf32>",
        "dense<0x7FC00000> : tensor<1xf32>",
        "dense<1.0> : tensor<3x1xf32>",
        "dense<[-1, 0, 1, 2]> : tensor<4xi8>",
        "dense<2.0> : tensor<2x1xf8E8M0FNU>",
        "dense<[0.0, 1.0]> : tensor<2xf32>",
        "dense<> : tensor<0xf32>",
        "dense_resource<missing> : tensor<1xf32>",
        "f32",
        "[1, 2]",
    ]
)
TYPES = st.sampled_from(["f8E4M3FN", "f4E2M1FN", "bf16", "f32", "f64", "i8", "i4", "tensor<2xf32>"])
BLOCKS = st.sampled_from(["array<i64: 1, 4>", "array<i64: 2, 2>", "array<i64: 0, 4>", "array<i64: 4>", "array<i64>"])
ANY = NUMBERS | ELEMENTS | TYPES | BLOCKS
LIKELY = {"scales": ELEMENTS, "levels": ELEMENTS, "negative": ELEMENTS, "positive": ELEMENTS, "element": TYPES, "block": BLOCKS}


@st.composite
def element_types(draw: st.DrawFn) -> str:
    cls = draw(st.sampled_from(Qcc.types))
    wild = draw(st.integers(0, 9)) == 0
    parameters = [draw(ANY if wild else LIKELY.get(field.name, NUMBERS)) for field in cls._fields]
    return f"!{cls.type_name}<{', '.join(parameters)}>"


@draws(300)
@given(element_types())
def test_a_type_decodes_or_is_an_error(text: str) -> None:
    kind = f"tensor<2x4x{text}>"
    source = f"""
    func.func @main(%x: {kind}) -> tensor<2x4xf32> {{
      %0 = "qcc.dequantize"(%x) : ({kind}) -> tensor<2x4xf32>
      return %0 : tensor<2x4xf32>
    }}
    """
    try:
        module = parse_module(source, CONTEXT)
    except QccError as problem:
        assert problem.message
        return
    argument = module.body.operations[0].regions[0].blocks[0].arguments[0].type
    assert describe(argument) is not None and 1 <= bits_of(argument) <= 64
    low = (stored_range(argument) or (0, 0))[0]
    (y,) = interpreter.run(module, [np.full((2, 4), low, np.int64).astype(storage_dtype(argument))])
    assert y.shape == (2, 4) and y.dtype == np.float32


@draws(200)
@given(
    st.sampled_from(['"n:m"', '"csr"', '"block"', '"bitmap"', '"channel"', '"run-length"', '"pattern"', '"shift"', '"x"', "1"]),
    st.dictionaries(st.sampled_from(["n", "m", "axis", "shape", "index_bits", "relative", "run_bits", "y"]), NUMBERS | BLOCKS, max_size=4),
    st.sampled_from(['"raw"', '"rans"', '"zip"', "2", "[]"]),
)
def test_an_encoding_verifies_or_is_an_error(kind: str, parameters: dict[str, str], codec: str) -> None:
    listed = ", ".join(f"{name} = {value}" for name, value in parameters.items())
    source = f"""
    func.func @main() {{
      %0 = "qcc.constant"() {{value = dense<0.0> : tensor<4x4xf32>}} : () -> tensor<4x4xf32, #qcc.sparse<{kind}, {{{listed}}}, {codec}>>
      return
    }}
    """
    try:
        parse_module(source, CONTEXT)
    except QccError as problem:
        assert problem.message
