"""The bytes that `select-sparse-format` counts are those that the reference stores, for every candidate and random masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.dialects import element_types, encodings, weights
from qcc.dialects.encodings import Encoding
from qcc.dialects.mlir import create, create_context, ir, parse_module, walk
from qcc.passes.base import PassContext, make_pass
from qcc.passes.integer._storage_bytes import candidates
from qcc.passes.integer._storage_times import Form, break_even
from qcc.passes.integer.select_sparse_format import _pattern, nonzero
from qcc.runtime.reference import storage
from test.property.tiled_executor import Text
from test.tiers import draws

CONTEXT = create_context()


@draws(40, suppress_health_check=[HealthCheck.too_slow])
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


def test_the_chosen_form_stays_exact() -> None:
    """Weights that are encoded hold what they held before, and the facts say why they are."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((16, 512)).astype(np.float32) * (rng.random((16, 512)) < 0.05)
    with CONTEXT, ir.Location.unknown():
        module = ir.Module.create()
        tensor, f32 = ir.RankedTensorType.get, ir.F32Type.get()
        kind = ir.FunctionType.get([tensor([1, 512], f32)], [tensor([1, 16], f32)])
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
        with ir.InsertionPoint(module.body):
            function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(*kind.inputs)
        with ir.InsertionPoint(block):
            constant = create("qcc.constant", [], [tensor([16, 512], f32)], {"value": weights.constant_attribute(w, "w")})
            y = create("qcc.linear", [block.arguments[0], constant.results[0]], [kind.results[0]], loc=ir.Location.name("layer"))
            ir.Operation.create("func.return", operands=[y.results[0]])
        context = PassContext()
        make_pass("select-sparse-format", "isa=avx512_vnni").run(module, context)
        chosen = next(walk(module, "qcc.constant"))
        encoded = ir.RankedTensorType(chosen.results[0].type)
        facts = context.facts["layer"]
        assert encodings.encoding_of(encoded).kind == facts["storage"] != "dense"
        assert facts["nonzeros"] == int(np.count_nonzero(w))
        assert facts["storage_times_us"][facts["storage"]] == min(facts["storage_times_us"].values())
        packed = storage.pack(weights.array_of(chosen.attributes["value"]), encoded)
        assert np.array_equal(storage.unpack(packed, encoded), w)


def _layer(density: float, rows: int, isa: str, options: str = "", *, bits: int = 32) -> dict[str, Any]:
    """Facts of a linear layer of 1024 x 1024, of f32, or of weights of `bits` bits and a real x."""
    rng = np.random.default_rng(1)
    w = (rng.standard_normal((1024, 1024)) * (rng.random((1024, 1024)) < density)).astype(np.float32)
    if bits < 32:
        w = np.clip(np.round(w * (1 << (bits - 3))), -(1 << (bits - 1)), (1 << (bits - 1)) - 1).astype(np.int8)
    with CONTEXT, ir.Location.unknown():
        tensor, f32 = ir.RankedTensorType.get, ir.F32Type.get()
        x = tensor([rows, 1024], f32)
        module = ir.Module.create()
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(ir.FunctionType.get([x], [x]))}
        with ir.InsertionPoint(module.body):
            function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(x)
        with ir.InsertionPoint(block):
            kind = f32 if bits == 32 else element_types.affine_type(0.5, 0, bits=bits)
            weight = create("qcc.constant", [], [tensor([1024, 1024], kind)], {"value": weights.constant_attribute(w, "w")}).results[0]
            if bits < 32:
                weight = create("qcc.dequantize", [weight], [tensor([1024, 1024], f32)]).results[0]
            y = create("qcc.linear", [block.arguments[0], weight], [x], loc=ir.Location.name("layer"))
            ir.Operation.create("func.return", operands=[y.results[0]])
        context = PassContext()
        make_pass("select-sparse-format", f"isa={isa} {options}").run(module, context)
    return context.facts["layer"]


@pytest.mark.parametrize(
    ("density", "rows", "isa", "storage"),
    [
        (0.1, 1, "avx512_vnni", "csr"),
        (0.5, 1, "avx512_vnni", "bitmap"),
        (0.94, 1, "avx512_vnni", "dense"),
        (0.94, 1, "avx512_bf16", "dense"),
        (0.1, 64, "avx512_vnni", "csr"),
        (0.9, 64, "avx512_vnni", "dense"),
        (0.1, 1, "avx2", "csr"),
        (0.1, 64, "avx2", "csr"),
        (0.9, 64, "avx2", "dense"),
    ],
)
def test_density_rows_and_instructions_decide(density: float, rows: int, isa: str, storage: str) -> None:
    facts = _layer(density, rows, isa)
    assert facts["storage"] == storage
    assert ("bitmap" in facts["storage_times_us"]) == (isa != "avx2")
    for kind, even in facts["storage_break_even"].items():  # a form is faster exactly beyond its break-even
        faster = facts["storage_times_us"][kind] < facts["storage_times_us"]["dense"]
        assert even != 0, "without zeros there is nothing to save"
        assert even is None or abs(1 - density - even) < 0.02 or faster == (1 - density > even)


@pytest.mark.parametrize(
    ("density", "bits", "options", "storage"),
    [
        (0.9, 8, "", "dense"),
        (0.5, 8, "", "bitmap"),
        (0.1, 8, "", "csr"),
        (0.3, 8, "", "csr"),
        (0.3, 8, "optimize=size", "bitmap"),
        (0.5, 4, "optimize=size", "bitmap"),
        (0.1, 8, "optimize=size", "csr"),
        (0.1, 8, "storage=bitmap", "bitmap"),
        (0.5, 8, "storage=csr", "csr"),
    ],
)
def test_streamed_weights_choose_among_all_forms(density: float, bits: int, options: str, storage: str) -> None:
    facts = _layer(density, 1, "avx512_vbmi", f"byte_expand=true {options}", bits=bits)
    assert facts["storage"] == storage, facts["storage_reason"]
    assert set(facts.get("storage_times_us", ())) <= {"dense", "bitmap", "csr"}, "no 2:4 in zeros in no order"


def test_two_of_four_needs_half_of_the_zeros() -> None:
    """However fast its codelet is."""
    dense, quads = (
        Form(Encoding(), lambda _: 8, lambda _: 2.0),
        Form(Encoding("n:m", {"n": 2, "m": 4, "axis": 1}), lambda _: 5, lambda _: 1.0),
    )
    assert break_even(quads, dense) == 0.5 and break_even(dense, quads) is None


def test_bytes_decide_where_asked_for() -> None:
    assert _layer(0.8, 64, "avx512_vnni")["storage"] == "dense"
    assert _layer(0.8, 64, "avx512_vnni", "optimize=size")["storage"] == "bitmap"


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (2, 4), (4, 8), (3, 8), (1, 16), (2, 16), (8, 32)])
def test_any_n_of_m_has_its_name(n: int, m: int) -> None:
    """Beside whatever form has a codelet; zeros in no order are unstructured."""
    rng = np.random.default_rng(n * m)
    order = rng.random((64, 128 // m, m)).argsort(axis=2)
    kept = (order < n).reshape(64, 128)
    found = candidates(kept, int(kept.sum()), 8)
    label = _pattern(found, n / m)
    assert label == f"{n}:{m}", label
    shuffled = rng.permuted(kept.reshape(-1)).reshape(64, 128)
    assert _pattern(candidates(shuffled, int(kept.sum()), 8), n / m) == "unstructured"


@pytest.mark.parametrize(
    ("kernel", "strides", "density", "storage"), [(1, 1, 0.1, "csr"), (1, 1, 0.9, "dense"), (1, 2, 0.1, "dense"), (3, 1, 0.1, "dense")]
)
def test_pixels_of_pointwise_convolutions_are_rows(kernel: int, strides: int, density: float, storage: str) -> None:
    rng, t, edge = np.random.default_rng(1), Text(), kernel // 2
    x = t.argument("tensor<1x128x14x14xf32>")
    w = rng.standard_normal((128, 128, kernel, kernel)).astype(np.float32) * (rng.random((128, 128, kernel, kernel)) < density)
    weight = t.constant(w.astype(np.float32), f"tensor<128x128x{kernel}x{kernel}xf32>")
    given = f"strides = array<i64: {strides}, {strides}>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    result = f"tensor<1x128x{14 // strides}x{14 // strides}xf32>"
    y = t.op("qcc.conv2d", [x, weight], result, f"{given}, padding = array<i64: {edge}, {edge}, {edge}, {edge}>")
    text = t.module(y).replace(f"-> {result}\n  return", f'-> {result} loc("layer")\n  return')
    with CONTEXT, ir.Location.unknown():
        module, context = parse_module(text, CONTEXT), PassContext()
        make_pass("select-sparse-format", "isa=avx512_vnni").run(module, context)
    facts = context.facts["layer"]
    assert facts["storage"] == storage
    if kernel == strides == 1:
        assert 0 < facts["storage_break_even"]["csr"] < 0.9 and "compressed rows" in facts["storage_reason"]
    else:
        assert "no codelet for such a convolution" in facts["storage_reason"]
