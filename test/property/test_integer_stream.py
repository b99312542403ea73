"""Linear layers of quantized x that read their weights as few bits as they are, or without zeros: bit for bit the reference."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.passes.base import PassContext, make_pass
from qcc.passes.tile.codelets import integer_stream, sparse_pixels, stream, stream_zeros
from test.property.test_codelets import EXAMPLES, _stored, _tensor
from test.property.tiled_executor import Text, check, dense, quantized
from test.tiers import draws, slow_except

INSTRUCTION_SETS = ["avx512_vbmi", "avx512_vnni", "avx2"]
WAYS = [(activations, kind) for activations in ("int8", "int16") for kind in ("dense", *stream_zeros.KINDS)]


@pytest.mark.parametrize("isa", slow_except(INSTRUCTION_SETS, "avx512_vbmi"))
@draws(40, EXAMPLES)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.sampled_from([1, 1, 2, 3, 8, 19]),
    inside=st.sampled_from([4, 36, 64, 100, 160, 256]),
    out=st.sampled_from([1, 16, 40, 64, 100, 130]),
    bits=st.integers(1, 8),
    zeros=st.sampled_from(["none", "half", "most", "quads"]),
    zero_points=st.booleans(),
    signed=st.booleans(),
    kind=st.sampled_from(["bytes", "floats"]),
    bias=st.booleans(),
    residual=st.booleans(),
    way=st.sampled_from(WAYS),
)
def test_linear(
    isa: str, seed: int, rows: int, inside: int, out: int, bits: int, zeros: str, zero_points: bool, signed: bool, kind: str, bias: bool,
    residual: bool, way: tuple[str, str],
) -> None:  # fmt: skip
    rng, t = np.random.default_rng(seed), Text()
    x_kind, y_kind = quantized(8, signed, 0.1, int(rng.integers(-9, 9)) if signed else 7), quantized(8, True, 0.5, 3)
    x = t.argument(_tensor([rows, inside], x_kind))
    other = t.argument(_tensor([rows, out], y_kind)) if residual and kind == "bytes" else None
    stored = _stored(rng, (out, inside), bits, bits > 1)
    zero = int(rng.choice(stored.reshape(-1))) if zero_points else 0
    kept = {"none": 1.0, "half": 0.5, "most": 0.08, "quads": 1.0}[zeros]
    mask = rng.random(stored.shape) < kept if zeros != "quads" else np.arange(inside)[None] % 4 < 2
    weight = t.constant(np.where(mask, stored, zero).astype(stored.dtype), _tensor([out, inside], quantized(bits, bits > 1, 0.1, zero)))
    operands = [x, weight]
    if bias:
        operands.append(t.constant(rng.integers(-5000, 5000, out).astype(np.int32), _tensor([out], "i32")))
    y = t.op("qcc.linear", operands, _tensor([rows, out], "i32"))
    if kind == "bytes":
        multiplier = (rng.uniform(20, 80, out) / (40.0 * (1 << bits) * inside**0.5)).astype(np.float32)
        y = t.op(
            "qcc.requantize", [y], _tensor([rows, out], y_kind), f'multiplier = {dense(multiplier, "f32")}, axis = 1 : i64, mode = "f32"'
        )
    else:
        y = t.op("qcc.dequantize", [y], _tensor([rows, out], "f32"), "multiplier = dense<0.01> : tensor<1xf32>")
    if other is not None:
        y = t.op("qcc.add", [y, other], _tensor([rows, out], y_kind), "multipliers = dense<[0.5, 0.75]> : tensor<2xf32>")
    inputs = [_stored(rng, (rows, inside), 8, signed)]
    if other is not None:
        inputs.append(_stored(rng, (rows, out), 8, True))

    ways: list[stream.Variant] = []

    def only(lowering: object, codes: object, rows: int, kinds: object) -> list[stream.Variant]:
        found = stream.choose(isa, way[0], codes, rows, way[1], byte_expand=True)  # type: ignore[arg-type]
        ways.extend([found] if found.compute != "f32" else [])
        return ways

    with (
        mock.patch.object(integer_stream, "GAIN", np.inf),
        mock.patch.object(integer_stream, "_variants", only),
        mock.patch.object(sparse_pixels, "rows_microseconds", lambda *_: np.inf),
    ):
        text = check(t.module(y), inputs, isa, byte_expand=True).text
    assert ('kind = "stream"' in text) == bool(ways)
    assert all(f'decoder = "{variant.decoder}"' in text for variant in ways)


def _layer(bits: int, density: float, bias: int = 0, rows: int = 1, zeros: str = "", isa: str = "avx512_vbmi") -> str:
    """Tiled form of 256 outputs of 512 inputs."""
    t, rng = Text(), np.random.default_rng(0)
    x = t.argument(_tensor([rows, 512], quantized(8, False, 0.1, 0)))
    stored = _stored(rng, (256, 512), bits, True) * (rng.random((256, 512)) < density)
    w = t.constant(stored.astype(np.int8), _tensor([256, 512], quantized(bits, True, 0.1, 0)))
    start = t.constant(np.full(256, bias, np.int32), _tensor([256], "i32"))
    y = t.op("qcc.linear", [x, w, start], _tensor([rows, 256], "i32"), zeros)
    y = t.op("qcc.dequantize", [y], _tensor([rows, 256], "f32"), "multiplier = dense<0.01> : tensor<1xf32>")
    return check(t.module(y), [_stored(rng, (rows, 512), 8, False)], isa, byte_expand=True).text


def test_where_weights_are_streamed() -> None:
    """Few bits and few weights pay; bytes do not, nor many rows, and sums of more than 24 bits would not be exact."""
    for bits in (1, 2, 3, 4):
        assert 'kind = "stream"' in _layer(bits, 1.0)
    assert 'decoder = "indexed"' in _layer(8, 0.05)
    for text in (_layer(8, 1.0), _layer(4, 1.0, bias=1 << 24), _layer(4, 1.0, rows=9), _layer(4, 1.0, zeros="qcc.zeros = 0.95 : f64")):
        assert 'kind = "stream"' not in text
    assert 'decoder = "indexed"' in _layer(8, 0.05, rows=7), "too few rows for sparse_pixels"
    assert 'kind = "stream"' not in _layer(8, 0.05, rows=16, isa="amx"), "a matrix unit is quicker"


@pytest.mark.parametrize("coded", [False, True])
def test_coded_weights_of_few_rows_keep_their_zeros_and_the_report_says_what_that_costs(coded: bool) -> None:
    t, rng = Text(), np.random.default_rng(0)
    x = t.argument(_tensor([1, 512], quantized(8, False, 0.1, 0)))
    stored = _stored(rng, (256, 512), 8, True) * (rng.random((256, 512)) < 0.05)
    w = t.constant(stored.astype(np.int8), _tensor([256, 512], quantized(8, True, 0.1, 0)))
    y = t.op("qcc.linear", [x, w], _tensor([1, 256], "i32"))
    y = t.op("qcc.dequantize", [y], _tensor([1, 256], "f32"), "multiplier = dense<0.01> : tensor<1xf32>")
    module, context = parse_module(t.module(y), create_context()), PassContext()
    with module.context, ir.Location.unknown():
        for op in walk(module, "qcc.linear"):
            op.location = ir.Location.name("layer")
        make_pass("assign-layout").run(module, context)
        make_pass("lower-to-codelets", f"isa=avx512_bf16 byte-expand=true coded={str(coded).lower()}").run(module, context)
    facts = context.facts["layer"]
    assert ('decoder = "indexed"' in str(module)) == (not coded) == (facts["storage"] == "csr")
    assert facts["storage_reason"].endswith("kept dense, because coded zeros take fewer bits than places") == coded
    assert "95% zeros: compressed rows" in facts["storage_reason"]
