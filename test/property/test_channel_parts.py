"""Layers in parts of few channels, as weights that are decoded while the model runs have them: what other files say of whole ones holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qcc.passes.tile.codelets import channel_parts
from test.property import test_codelets, test_codelets_float, test_columns, test_integer_stream, test_sparse_linear, test_streams
from test.property.tiled_executor import Tiled
from test.tiers import slow_except

WIDE, NARROW = {"isa": "avx512_vnni"}, {"isa": "avx2"}
PROPERTIES: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "convolution": (test_codelets.test_convolution, WIDE),
    "linear": (test_codelets.test_linear, NARROW),
    "linear, 512 bits": (test_codelets.test_linear, WIDE),
    "f32 linear": (test_codelets_float.test_float_linear_with_elementwise_epilogue, WIDE),
    "dynamic linear": (
        test_codelets_float.test_dynamic_linear,
        WIDE | {"shape": (3, 40), "out": 75, "scale": 1, "signed": 0, "rows": None},
    ),
    "columns": (test_columns.test_linear, NARROW),
    "columns, 512 bits": (test_columns.test_linear, WIDE),
    "integers as stored": (test_integer_stream.test_linear, {"isa": "avx512_vbmi"}),
    "weight-only, zero points": (test_streams.test_formats, WIDE | {"name": "int4_zeros"}),
    "weight-only, levels": (test_streams.test_formats, NARROW | {"name": "codebook16"}),
    "weight-only, two signs": (test_streams.test_formats, WIDE | {"name": "ternary"}),
    "weight-only, bitmaps": (test_streams.test_bitmaps, {"bits": 8, "density": 0.5}),
    "weight-only, columns": (test_streams.test_columns_of_values, {"decoder": "indexed", "bits": 8, "density": 0.1}),
    "weight-only, relative columns": (test_streams.test_columns_of_values, {"decoder": "relative", "bits": 8, "density": 0.1}),
    "compressed rows": (test_sparse_linear.test_compressed_rows, NARROW),
    "pointwise convolutions": (test_sparse_linear.test_pointwise_convolutions, WIDE),
    "f32 bitmaps": (test_sparse_linear.test_bitmaps, WIDE),
}


@pytest.mark.parametrize("name", slow_except(PROPERTIES, "linear", "columns"))
def test_products_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check, given = PROPERTIES[name]
    monkeypatch.setattr(Tiled, "streamed", True)
    monkeypatch.setattr(channel_parts, "PART_BYTES", 64)
    monkeypatch.setattr(channel_parts, "CHANNELS", 16)
    counts: list[int] = []
    cut = channel_parts.cut

    def counted(*args: Any) -> list[tuple[int, int]]:
        found = cut(*args)
        counts.append(len(found))
        return found

    monkeypatch.setattr(channel_parts, "cut", counted)
    check(**given)
    assert max(counts) > 1
