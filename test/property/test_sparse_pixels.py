"""Convolutions and linear layers of bytes whose zero blocks of four input channels are left out: bit for bit the reference."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.dialects.pixel_units import PixelUnits, quadruples
from qcc.passes.base import PassContext, make_pass
from qcc.passes.tile.codelets import sparse_pixels
from qcc.passes.tile.codelets.sparse_packing import expected_pixel_bytes
from test.property.tiled_executor import Text, Tiled, check, dense, quantized
from test.tiers import draws, slow_except

INSTRUCTION_SETS = slow_except([isa for isa, facts in ISAS.items() if facts.dot4 and not facts.tiles], "avx_vnni")
EXAMPLES = draws(12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def _tensor(shape: Any, element: str) -> str:
    return f"tensor<{''.join(f'{n}x' for n in shape)}{element}>"


def _always(text: str, inputs: list[np.ndarray], isa: str, tolerance: float = 0.0) -> Tiled:
    with mock.patch.object(sparse_pixels, "GAIN", np.inf):
        found = check(text, inputs, isa, tolerance=tolerance)
    assert 'kind = "sparse_pixels"' in found.text
    return found


def _weights(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> np.ndarray:
    return (rng.integers(-128, 128, shape) * (rng.random(shape) < density)).astype(np.int8)


@st.composite
def convolutions(draw: Any) -> dict[str, Any]:
    return {
        "seed": draw(st.integers(0, 1 << 30)),
        "n": draw(st.integers(1, 3)),
        "c": draw(st.sampled_from([1, 3, 8, 20, 64, 100, 130])),
        "o": draw(st.sampled_from([4, 16, 20, 64, 132])),
        "kernel": draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (1, 3), (5, 2)])),
        "strides": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "dilations": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "padding": tuple(draw(st.integers(0, 2)) for _ in range(4)),
        "size": (draw(st.integers(9, 14)), draw(st.integers(5, 12))),
        "density": draw(st.sampled_from([0.0, 0.05, 0.3, 0.9])),
        "signed": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "behind": draw(st.sampled_from(["bytes", "residual", "sums", "real", "border"])),
    }


def _convolution(case: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
    rng, t = np.random.default_rng(case["seed"]), Text()
    n, c, o = case["n"], case["c"], case["o"]
    (kh, kw), (sh, sw), (dh, dw), pad, (h, w) = (case[k] for k in ("kernel", "strides", "dilations", "padding", "size"))
    shape = [n, o, (h + pad[0] + pad[2] - dh * (kh - 1) - 1) // sh + 1, (w + pad[1] + pad[3] - dw * (kw - 1) - 1) // sw + 1]
    zero = int(rng.integers(-128, 128)) + (0 if case["signed"] else 128)
    q = t.op("qcc.quantize", [t.argument(_tensor([n, c, h, w], "f32"))], _tensor([n, c, h, w], quantized(8, case["signed"], 0.05, zero)))
    weight = t.constant(_weights(rng, (o, c, kh, kw), case["density"]), _tensor((o, c, kh, kw), quantized(8, True, 0.1, 0)))
    operands = [q, weight]
    if case["bias"]:
        operands.append(t.constant(rng.integers(-5000, 5000, o).astype(np.int32), _tensor([o], "i32")))
    attributes = (
        f"strides = array<i64: {sh}, {sw}>, padding = array<i64: {', '.join(map(str, pad))}>, "
        f"dilations = array<i64: {dh}, {dw}>, groups = 1 : i64"
    )
    y = t.op("qcc.conv2d", operands, _tensor(shape, "i32"), attributes)
    inputs = [rng.standard_normal((n, c, h, w)).astype(np.float32) * 3]
    if case["behind"] == "sums":
        return t.module(y), inputs
    multiplier = (rng.uniform(0.5, 2, o) / (kh * kw * c) ** 0.5 / 100).astype(np.float32)
    if case["behind"] == "real":
        return t.module(
            t.op("qcc.dequantize", [y], _tensor(shape, "f32"), f"multiplier = {dense(multiplier, 'f32')}, axis = 1 : i64")
        ), inputs
    kind = quantized(8, case["signed"], 0.1, 3)
    scaled = f'multiplier = {dense(multiplier, "f32")}, axis = 1 : i64, mode = "f32"'
    y = t.op("qcc.requantize", [y], _tensor(shape, kind), scaled)
    if case["behind"] == "residual":
        other = t.argument(_tensor(shape, "f32"))
        inputs.append(rng.standard_normal(shape).astype(np.float32) * 3)
        other = t.op("qcc.quantize", [other], _tensor(shape, kind))
        t.lines.insert(0, t.lines.pop())  # the residual is there before the convolution
        pair = f"multipliers = {dense(rng.uniform(0.1, 1, 2).astype(np.float32), 'f32')}, clamp = array<i64: 3, 101>"
        y = t.op("qcc.add", [other, y] if case["seed"] % 2 else [y, other], _tensor(shape, quantized(8, True, 0.1, -7)), pair)
    if case["behind"] == "border":
        last = t.constant(rng.integers(-9, 9, (4, o, 3, 3)).astype(np.int8), _tensor((4, o, 3, 3), quantized(8, True, 0.1, 0)))
        around = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"
        y = t.op("qcc.conv2d", [y, last], _tensor([n, 4, *shape[2:]], "i32"), around)
    return t.module(y), inputs


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@EXAMPLES
@given(case=convolutions())
def test_convolutions(isa: str, case: dict[str, Any]) -> None:
    _always(*_convolution(case), isa)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    batch=st.sampled_from([[16], [70], [5, 7], [2, 3, 9]]),
    inside=st.sampled_from([4, 37, 256, 700]),
    out=st.sampled_from([4, 64, 100]),
    density=st.sampled_from([0.05, 0.3]),
)
def test_linear_layers_of_many_rows(isa: str, seed: int, batch: list[int], inside: int, out: int, density: float) -> None:
    rng, t = np.random.default_rng(seed), Text()
    q = t.op("qcc.quantize", [t.argument(_tensor([*batch, inside], "f32"))], _tensor([*batch, inside], quantized(8, False, 0.05, 100)))
    weight = t.constant(_weights(rng, (out, inside), density), _tensor([out, inside], quantized(8, True, 0.1, 0)))
    acc = t.op("qcc.linear", [q, weight], _tensor([*batch, out], "i32"))
    y = t.op(
        "qcc.requantize",
        [acc],
        _tensor([*batch, out], quantized(8, True, 0.1, 0)),
        'multiplier = dense<0.01> : tensor<1xf32>, mode = "f32"',
    )
    with mock.patch.object(sparse_pixels, "LEAST_CHANNELS", 4):
        _always(t.module(y), [rng.standard_normal((*batch, inside)).astype(np.float32) * 3], isa)


@pytest.mark.parametrize("isa", ["avx512_vnni", "avx_vnni"])
@pytest.mark.parametrize(
    ("pixels", "channels", "taps", "run", "density"),
    slow_except([(784, 128, (3, 1), 384, 0.1), (49, 1024, (1, 1), 500, 0.05)], (49, 1024, (1, 1), 500, 0.05)),
)
def test_each_quadruple_is_stored_once(isa: str, pixels: int, channels: int, taps: tuple[int, int], run: int, density: float) -> None:
    """What fills up a group is 0 and stands where the channel has no quadruple; bytes are as predicted."""
    w = _weights(np.random.default_rng(3), (channels, taps[0] * taps[1], run), density)
    words = quadruples(w)
    part = np.count_nonzero(words) / words.size
    codelet = sparse_pixels.configuration(isa, (1, 1, pixels, channels), taps, run, part)
    units = PixelUnits.of(codelet, w)
    stream, starts = units.apply(), units.starts.reshape(-1, len(codelet.blocks))
    found, met = (
        np.zeros_like(words, shape=(channels + codelet.group, words.shape[1])),
        np.zeros((channels + codelet.group, words.shape[1]), int),
    )
    for (task, block), begin in np.ndenumerate(starts):
        count = min(codelet.chunk, channels - task * codelet.chunk)
        groups = -(-count // codelet.group)
        heads = stream[begin : begin + groups * codelet.head_bytes].view(np.uint16).reshape(groups, -1)
        at = begin + groups * codelet.head_bytes
        for head in heads:
            for _ in range(head[-1]):
                unit = stream[at : at + codelet.unit_bytes]
                offsets, values = unit[: 2 * codelet.group].view(np.uint16), unit[2 * codelet.group :].copy().view(np.int32)
                place = task * codelet.chunk + head[:-1].astype(int), codelet.blocks[block][0] + offsets.astype(int) // codelet.row_bytes
                found[place] += values
                met[place] += 1
                at += codelet.unit_bytes
    np.testing.assert_array_equal(found[:channels], words)
    assert (met[:channels] <= 1).all() and not found[channels:].any()
    assert 0.9 < stream.nbytes / expected_pixel_bytes(codelet, part) < 1.1


def _facts(density: float, isa: str, options: str = "") -> dict[str, Any]:
    """Of a 1x1 layer of 256 channels on 14 x 14."""
    rng, t = np.random.default_rng(2), Text()
    x = t.op("qcc.quantize", [t.argument("tensor<1x256x14x14xf32>")], _tensor([1, 256, 14, 14], quantized(8, False, 0.05, 0)))
    weight = t.constant(_weights(rng, (256, 256, 1, 1), density), _tensor((256, 256, 1, 1), quantized(8, True, 0.1, 0)))
    plain = "strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    acc = t.op("qcc.conv2d", [x, weight], "tensor<1x256x14x14xi32>", plain)
    y = t.op(
        "qcc.requantize",
        [acc],
        _tensor([1, 256, 14, 14], quantized(8, False, 0.1, 0)),
        'multiplier = dense<0.01> : tensor<1xf32>, mode = "f32"',
    )
    module, context = parse_module(t.module(y), create_context()), PassContext()
    with module.context, ir.Location.unknown():
        for op in walk(module, "qcc.conv2d"):
            op.location = ir.Location.name("layer")
        make_pass("assign-layout").run(module, context)
        make_pass("lower-to-codelets", f"isa={isa} {options}").run(module, context)
    return context.facts["layer"] | {"sparse": "sparse_pixels" in str(module)}


@pytest.mark.parametrize(
    ("density", "isa", "options", "sparse"),
    [
        (0.1, "avx512_bf16", "", True),
        (0.1, "avx512_vnni", "", True),
        (0.1, "avx512_bf16", "storage=dense", False),
        (0.9, "avx512_bf16", "", False),
        (0.9, "avx512_bf16", "storage=block", True),
        (0.1, "avx512_bf16", "coded=true", True),
        (0.1, "avx512_bf16", "coded=true streamed=true", False),
    ],
)
def test_predicted_time_decides(density: float, isa: str, options: str, sparse: bool) -> None:
    """And what was asked for; the report has both times and the share of zeros between them."""
    facts = _facts(density, isa, options)
    assert facts["sparse"] == sparse == (facts["storage"] == "block 1x4")
    times, even = facts["storage_times_us"], facts["storage_break_even"]["block"]
    assert (times["block"] < times["dense"]) == (1 - density > even)
    assert ("decoded while running" in facts["storage_reason"]) == ("streamed" in options)
    assert ("kept dense" in facts["storage_reason"]) == (not sparse and "storage" not in options)


@pytest.mark.parametrize(("rows", "sparse"), [(8, False), (64, True)])
def test_streams_are_for_few_rows(rows: int, sparse: bool) -> None:
    """From some rows on, turning x around costs less than finding the places of weights for each of them."""
    rng, t = np.random.default_rng(2), Text()
    x = t.argument(_tensor([rows, 512], quantized(8, False, 0.05, 9)))
    weight = t.constant(_weights(rng, (512, 512), 0.1), _tensor((512, 512), quantized(8, True, 0.1, 0)))
    acc = t.op("qcc.linear", [x, weight], _tensor([rows, 512], "i32"))
    y = t.op(
        "qcc.requantize", [acc], _tensor([rows, 512], quantized(8, True, 0.1, 0)), 'multiplier = dense<0.01> : tensor<1xf32>, mode = "f32"'
    )
    found = check(t.module(y), [rng.integers(0, 256, (rows, 512)).astype(np.uint8)], "avx512_bf16", byte_expand=True)
    assert ("sparse_pixels" in found.text) == sparse == ('kind = "stream"' not in found.text)
