"""Linear layers whose f32 weights are stored without their zeros: every form and instruction set against the reference."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcc.dialects import weights
from qcc.dialects.codelet import SparseLanes
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import create, create_context, ir
from qcc.passes.tile.codelets import sparse
from qcc.passes.tile.codelets.sparse_packing import lane_rows
from qcc.runtime.reference import interpreter
from test.property.tiled_executor import Text, Tiled
from test.property.tiled_executor import check as check_text
from test.tiers import draws, slow_except

EXAMPLES = draws(6, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
CSR = '#qcc.sparse<"csr", {index_bits = 16 : i64, relative = false}, "raw">'
BITMAP = '#qcc.sparse<"bitmap", {}, "raw">'


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    return {
        "seed": draw(st.integers(0, 1 << 30)),
        "shape": draw(st.sampled_from([[1], [2], [3], [7], [8], [17], [33], [64], [70], [2, 5], [3, 1, 9]])),
        "n": draw(st.sampled_from([1, 5, 16, 31, 64, 70, 130])),
        "k": draw(st.sampled_from([1, 3, 16, 61, 150, 600])),
        "density": draw(st.sampled_from([0.0, 0.02, 0.1, 0.4, 1.0])),
        "bias": draw(st.booleans()),
        "relu": draw(st.booleans()),
        "residual": draw(st.booleans()),
    }


def module_of(case: dict[str, Any], w: np.ndarray, encoding: str, rng: np.random.Generator) -> ir.Module:
    """The current context's module: linear with encoded weights, and what the case fuses behind it."""
    (n, k), lead = w.shape, case["shape"]
    f32, tensor = ir.F32Type.get(), ir.RankedTensorType.get
    y_kind = tensor([*lead, n], f32)
    module = ir.Module.create()
    kind = ir.FunctionType.get([tensor([*lead, k], f32), y_kind], [y_kind])
    with ir.InsertionPoint(module.body):
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
        function = ir.Operation.create("func.func", attributes=attributes, regions=1)
    block = function.regions[0].blocks.append(*kind.inputs)
    with ir.InsertionPoint(block):
        stored = tensor([n, k], f32, ir.Attribute.parse(encoding))
        operands = [
            block.arguments[0],
            create("qcc.constant", [], [stored], {"value": weights.constant_attribute(w, "w")}).results[0],
        ]
        if case["bias"]:
            bias = rng.normal(size=n).astype(np.float32)
            operands.append(create("qcc.constant", [], [tensor([n], f32)], {"value": weights.constant_attribute(bias, "b")}).results[0])
        y = create("qcc.linear", operands, [y_kind]).results[0]
        if case["residual"]:
            y = create("qcc.add", [y, block.arguments[1]], [y_kind]).results[0]
        if case["relu"]:
            y = create("qcc.clamp", [y], [y_kind], {"min": 0.0, "max": float("inf")}).results[0]
        ir.Operation.create("func.return", operands=[y])
    return module


def check(case: dict[str, Any], encoding: str, isa: str) -> str:
    """Compare with the reference; the tiled form."""
    rng = np.random.default_rng(case["seed"])
    with create_context(), ir.Location.unknown():
        w = (rng.normal(size=(case["n"], case["k"])) * (rng.random((case["n"], case["k"])) < case["density"])).astype(np.float32)
        x = rng.normal(size=(*case["shape"], case["k"])).astype(np.float32)
        other = rng.normal(size=(*case["shape"], case["n"])).astype(np.float32)
        module = module_of(case, w, encoding, rng)
        want = interpreter.run(module, [x, other])[0]
        tiled = Tiled(module, isa)
    got = tiled(x, other)[0].view(want.dtype).reshape(want.shape)
    bound = 2.0**-20 * (np.abs(x) @ np.abs(w).T) + 1e-6
    assert (np.abs(got.astype(np.float64) - want) <= bound).all()
    return tiled.text


@pytest.mark.parametrize("isa", slow_except(ISAS, "avx2"))
@settings(EXAMPLES)
@given(case=cases())
def test_compressed_rows(isa: str, case: dict[str, Any]) -> None:
    text = check(case, CSR, isa)
    few = np.prod(case["shape"]) <= sparse.MOST_GATHERED_ROWS
    assert ('kind = "sparse_gather"' in text) == few and ('kind = "sparse_lanes"' in text) != few


@pytest.mark.slow
@pytest.mark.parametrize("isa", [isa for isa, facts in ISAS.items() if facts.lanes == 16])
@settings(EXAMPLES)
@given(case=cases())
def test_bitmaps(isa: str, case: dict[str, Any]) -> None:
    assert 'decoder = "bitmap_f32"' in check(case, BITMAP, isa)


@pytest.mark.parametrize("encoding", slow_except([CSR, BITMAP], CSR))
@pytest.mark.parametrize("rows", slow_except([1, 2, 100], 2))
def test_large_layers_of_many_tasks(encoding: str, rows: int) -> None:
    """Several tasks, the last one partial; several blocks of k."""
    case = {"seed": 1, "shape": [rows], "n": 1003, "k": 2100, "density": 0.3, "bias": True, "relu": False, "residual": True}
    text = check(case, encoding, "avx512_vnni")
    calls = re.findall(r"call @(?:sparse|stream)\w+\(.*qtile.tasks = (\d+)", text)
    assert len(calls) == 1 and int(calls[0]) > 1


@pytest.mark.parametrize("isa", slow_except(["avx512_vnni", "avx2"], "avx2"))
@pytest.mark.parametrize(
    ("rows", "n", "k", "density"), slow_except([(64, 130, 300, 0.1), (16, 1100, 600, 0.3), (3, 5, 61, 1.0)], (64, 130, 300, 0.1))
)
def test_groups_are_filled_up_where_weights_are_zero(isa: str, rows: int, n: int, k: int, density: float) -> None:
    """Each weight is stored once; what fills up a group meets an x that the reference multiplies by zero too. Sizes are as predicted."""
    rng = np.random.default_rng(7)
    w = (rng.normal(size=(n, k)) * (rng.random((n, k)) < density)).astype(np.float32)
    codelet = sparse.configuration("csr", isa, rows, n, k, density)
    assert isinstance(codelet, SparseLanes)
    stream, starts = lane_rows(codelet, w)
    found, met = np.zeros((n + codelet.group, k), np.float32), np.zeros((n + codelet.group, k), int)
    for (task, block), begin in np.ndenumerate(starts):
        channels = min(codelet.chunk, n - task * codelet.chunk)
        groups = -(-channels // codelet.group)
        heads = stream[begin : begin + groups * codelet.head_bytes].view(np.uint16).reshape(groups, -1)
        at = begin + groups * codelet.head_bytes
        for head in heads:
            for _ in range(head[-1]):
                unit = stream[at : at + codelet.unit_bytes]
                offsets, values = unit[: 2 * codelet.group].view(np.uint16), unit[2 * codelet.group :].copy().view(np.float32)
                place = task * codelet.chunk + head[:-1].astype(int), block * codelet.depth + offsets.astype(int) // codelet.row_bytes
                found[place] += values
                met[place] += 1
                at += codelet.unit_bytes
    np.testing.assert_array_equal(found[:n], w)
    assert (met[:n] <= 1).all() and not found[n:].any()
    assert 0.7 < stream.nbytes / sparse.expected_bytes(codelet, density) < 1.2


CONVOLUTION = "strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, padding = array<i64: {0}, {0}, {0}, {0}>"


@pytest.mark.parametrize("isa", slow_except(ISAS, "avx2"))
@settings(EXAMPLES)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.sampled_from([(1, 3, 1), (1, 5, 7), (2, 4, 4), (3, 1, 9)]),
    channels=st.sampled_from([(3, 5), (16, 32), (61, 33)]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    bias=st.booleans(),
    residual=st.booleans(),
    around=st.sampled_from(["nothing", "borders", "layout"]),
)
def test_pointwise_convolutions(
    isa: str, seed: int, size: tuple[int, int, int], channels: tuple[int, int], density: float, bias: bool, residual: bool, around: str
) -> None:
    """Pixels are rows, also between layers that read and write borders, and where x is the caller's."""
    rng, t, (n, height, width), (k, out) = np.random.default_rng(seed), Text(), size, channels
    image, made = f"tensor<{n}x{k}x{height}x{width}xf32>", f"tensor<{n}x{out}x{height}x{width}xf32>"
    value = t.argument(image)
    if around != "nothing":
        first = t.constant(rng.normal(size=(k, k, 1, 1)).astype(np.float32), f"tensor<{k}x{k}x1x1xf32>")
        value = t.op("qcc.conv2d", [value, first], image, CONVOLUTION.format(0))
    w = (rng.normal(size=(out, k, 1, 1)) * (rng.random((out, k, 1, 1)) < density)).astype(np.float32)
    operands = [value, t.constant(w, f"tensor<{out}x{k}x1x1xf32, {CSR}>")]
    if bias:
        operands.append(t.constant(rng.normal(size=out).astype(np.float32), f"tensor<{out}xf32>"))
    y = t.op("qcc.conv2d", operands, made, CONVOLUTION.format(0))
    if residual:
        y = t.op("qcc.add", [y, t.argument(made)], made)
    y = t.op("qcc.clamp", [y], made, "min = 0.0 : f64, max = 6.0 : f64")
    if around == "borders":
        last = t.constant(rng.normal(size=(4, out, 3, 3)).astype(np.float32), f"tensor<4x{out}x3x3xf32>")
        y = t.op("qcc.conv2d", [y, last], f"tensor<{n}x4x{height}x{width}xf32>", CONVOLUTION.format(1))
    inputs = [rng.normal(size=(n, k, height, width)), rng.normal(size=(n, out, height, width))][: 1 + residual]
    found = check_text(t.module(y), [x.astype(np.float32) for x in inputs], isa, tolerance=2e-4)
    assert "sparse_lanes" in found.text
