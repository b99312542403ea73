"""The bytes that `select-sparse-format` counts are those that the reference stores, for every candidate and random masks."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.dialects import element_types, encodings, weights
from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.passes.base import PassContext, make_pass
from qcc.passes.integer.select_sparse_format import candidates, nonzero
from qcc.runtime.reference import storage

CONTEXT = create_context()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_bytes_are_those_of_the_reference(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    shape = data.draw(st.sampled_from([[7, 19], [8, 16], [5, 6, 3, 3], [4, 8, 1, 1], [16, 1, 3, 3], [1, 64]]))
    bits, zero = data.draw(st.integers(2, 8)), data.draw(st.integers(-1, 1))
    stored = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape).astype(np.int8)
    stored[rng.random(shape) > data.draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]))] = zero
    if data.draw(st.booleans()):  # a structure: two of four, and an empty channel
        stored[:, [c for c in range(shape[1]) if c % 4 > 1]] = zero
        stored[0] = zero
    with CONTEXT, ir.Location.unknown():
        element = element_types.affine_type(0.5, zero, bits=bits)
        kind = ir.RankedTensorType.get(shape, element)
        kept = nonzero(stored, kind)
        assert kept is not None
        found = candidates(kept, int(kept.sum()), bits)
        assert found[0][0].kind == "dense"
        for encoding, size in found:
            encodings.verify(encoding, shape)
            coded = ir.RankedTensorType.get(shape, element, encodings.make_encoding(encoding))
            streams = storage.pack(stored, coded)
            assert storage.size_bytes(streams) == size, encoding
            assert np.array_equal(storage.unpack(streams, coded), stored), encoding


def test_an_empty_channel_stays_exact() -> None:
    """The chosen form of a weight with a zero channel and a large random one hold the same integers as before."""
    rng = np.random.default_rng(0)
    stored = rng.integers(-8, 8, (16, 32)).astype(np.int8)
    stored[[3, 7]] = 0
    w, x = "tensor<16x32x!quant.uniform<i4:f32, 1.0>>", "tensor<1x32x!quant.uniform<u8:f32, 1.0>>"
    module = parse_module(
        f"""func.func @main(%x: {x}) -> tensor<1x16xi32> {{
          %w = "qcc.constant"() {{value = dense<{stored.tolist()}> : tensor<16x32xi8>}} : () -> {w}
          %a = "qcc.linear"(%x, %w) : ({x}, {w}) -> tensor<1x16xi32> loc("layer")
          return %a : tensor<1x16xi32> }}""",
        CONTEXT,
    )
    context = PassContext()
    with CONTEXT, ir.Location.unknown():
        make_pass("select-sparse-format", "formats=channel").run(module, context)
        constant = next(walk(module, "qcc.constant"))
        kind = ir.RankedTensorType(constant.results[0].type)
        assert encodings.encoding_of(kind).kind == "channel"
        assert context.facts["layer"]["storage"] == "channel 0"
        assert context.facts["layer"]["nonzeros"] == int(np.count_nonzero(stored))
        packed = storage.pack(weights.array_of(constant.attributes["value"]), kind)
        assert np.array_equal(storage.unpack(packed, kind), stored)
