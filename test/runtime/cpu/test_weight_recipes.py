"""Weights that an artefact makes while it is loaded: C gives the bits of the numpy meaning, which is what codelets were given."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qcc
from qcc.dialects.pixel_units import PIXEL_UNITS, PixelUnits
from qcc.dialects.weight_recipes import (
    LAYOUTS,
    PANELS_BF16,
    PANELS_F32,
    TRANSFORM_TIMES_24,
    WINOGRAD_F32,
    WINOGRAD_S16,
    AnyRecipe,
    Recipe,
)
from qcc.passes.tile.codelets import packing
from qcc.runtime.cpu import loader
from qcc.runtime.reference import weights_image
from test.property.tiled_executor import Text, quantized
from test.tiers import draws

BAD_CPU, BAD_WEIGHTS = 3, 6


def aligned(size: int) -> np.ndarray:
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def decode_in_c(data: np.ndarray, size: int, threads: int = 1) -> tuple[int, np.ndarray]:
    image, block = aligned(data.size), aligned(size)
    image[:] = data
    return loader.runtime().qcc_weights_decode(image.ctypes.data, image.size, block.ctypes.data, size, threads, -1), block


def coded(rng: np.random.Generator, shape: tuple[int, int, int], inner: int, period: int, group: int) -> dict[str, object]:
    """Codes of up to 16 levels, with levels per tensor, channel or group, and scales and zeros per tensor, channel or group."""
    batches, channels, _ = shape
    rows, count = batches * channels, int(rng.integers(2, 17))
    groups = -(-period // group)
    scale_rows = int(rng.choice([1, rows]))
    return {
        "source": rng.integers(0, count, shape).astype(np.uint8),
        "levels": rng.normal(size=(int(rng.choice([1, rows])), int(rng.choice([1, groups])), count)).astype(np.float32),
        "scales": rng.uniform(0.1, 1, (scale_rows, groups)).astype(np.float32),
        "zeros": rng.normal(size=(scale_rows, groups)).astype(np.float32) if rng.random() < 0.5 else None,
        "inner": inner,
        "period": period,
        "group": group,
    }


def pixel_units(rng: np.random.Generator) -> PixelUnits:
    """Weights in which some channels are full or empty, and some read the same channels of x."""
    channels, taps, run = int(rng.integers(1, 90)), int(rng.integers(1, 4)), int(rng.choice([3, 16, 64, 70, 128, 200]))
    lanes, vectors = int(rng.choice([8, 16])), int(rng.integers(1, 8))
    kept = rng.random((channels, taps, run)) < rng.choice([0, 0.1, 0.3, 1], (channels, 1, 1), p=[0.1, 0.6, 0.2, 0.1])
    kept[:, :, ::5] |= rng.random((channels, 1, 1)) < 0.2
    w = (rng.integers(-128, 128, kept.shape) * kept).astype(np.int8)
    sizes = (
        int(rng.integers(1, 9)),
        run,
        int(rng.integers(1, 5)),
        int(rng.integers(1, 2 * channels + 1)),
        lanes == 16 and rng.random() < 0.7,
    )
    return PixelUnits(lanes, vectors, *sizes, w.reshape(1, channels, -1))


def recipe_of(rng: np.random.Generator, layout: str) -> AnyRecipe:
    if layout == PIXEL_UNITS:
        return pixel_units(rng)
    if layout in (WINOGRAD_S16, WINOGRAD_F32):
        out, inputs = 32 * int(rng.integers(1, 3)), 2 * int(rng.integers(1, 9))
        if layout == WINOGRAD_S16:
            return Recipe(layout, 16, 2, rng.integers(-127, 128, (1, out, inputs * 9)).astype(np.int8))
        if rng.random() < 0.5:
            return Recipe(layout, 16, 2, rng.normal(size=(1, out, inputs * 9)).astype(np.float32))
        return Recipe(layout, 16, 2, **coded(rng, (1, out, inputs * 9), 9, inputs, int(rng.integers(1, inputs + 1))))  # type: ignore[arg-type]
    batches, channels, inputs, taps = (int(rng.integers(1, top)) for top in (4, 70, 20, 5))
    shape = (batches, channels, inputs * taps)
    if layout == PANELS_F32 and rng.random() < 0.3:
        return Recipe(layout, 16, 2, rng.normal(size=shape).astype(np.float32))
    return Recipe(layout, 16, 2, **coded(rng, shape, 1, inputs, int(rng.integers(1, inputs + 1))))  # type: ignore[arg-type]


def image_of(recipes: list[AnyRecipe], codec: str, rng: np.random.Generator) -> tuple[weights_image.Image, np.ndarray]:
    """Recipes between plain weights; the image, and the block that it must decode to."""
    parts, spans, at, where = [], [], 0, {}
    for recipe in recipes:
        for data in (recipe.apply().view(np.uint8), rng.integers(0, 3, 640).astype(np.uint8)):
            padded = np.zeros(-(-data.size // 64) * 64, np.uint8)
            padded[: data.size] = data
            parts.append(padded)
            spans.append((at, padded.size))
            at += padded.size
        where[len(spans) - 2] = recipe
    block = np.concatenate(parts)
    return weights_image.encode(block, spans, codec, where), block


@draws(30)
@given(
    st.integers(0, 1 << 30),
    st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=4),
    st.sampled_from(["none", "huffman", "rans", "auto"]),
)
def test_c_and_numpy_make_the_same_bits(seed: int, layouts: list[str], codec: str) -> None:
    rng = np.random.default_rng(seed)
    image, block = image_of([recipe_of(rng, layout) for layout in layouts], codec, rng)
    assert np.array_equal(weights_image.decode(image.data.tobytes()), block)
    for threads in (1, 3):
        status, found = decode_in_c(image.data, block.size, threads)
        assert status == 0, ctypes.string_at(loader.runtime().qcc_model_error()).decode()
        assert np.array_equal(found, block)


def test_panels_are_what_contractions_are_packed_to() -> None:
    rng = np.random.default_rng(3)
    w = rng.normal(size=(3, 75, 40)).astype(np.float32)
    packed, _ = packing.pack(w.reshape(3, 75, 4, 10), lanes=16, depth=1, vectors=2)
    assert np.array_equal(Recipe(PANELS_F32, 16, 2, w).apply(), packed)
    short = (w.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    packed, _ = packing.pack(short.reshape(3, 75, 4, 10), lanes=16, depth=1, vectors=2)
    assert np.array_equal(Recipe(PANELS_BF16, 16, 2, short).apply(), packing.bf16_words(packed))


def test_winograd_is_the_transform() -> None:
    rng = np.random.default_rng(4)
    w = rng.integers(-127, 128, (64, 6, 3, 3)).astype(np.int8)
    points = np.einsum("ra,ocab,qb->rqoc", TRANSFORM_TIMES_24, w.astype(np.int64), TRANSFORM_TIMES_24).reshape(36, 64, 6)
    packed = Recipe(WINOGRAD_S16, 16, 2, w.reshape(1, 64, -1)).apply().reshape(2, 36, 3, 32, 2)  # [block, point, step, channel, depth]
    assert np.array_equal(packed.transpose(1, 0, 3, 2, 4).reshape(36, 64, 6), points)


@pytest.mark.slow
def test_an_artefact_makes_the_weights_of_winograd(tmp_path: Path) -> None:
    """3x3 weights take their own bytes, or coded those of their entropy, not those of their transform; results stay the same bits."""
    rng = np.random.default_rng(5)
    t = Text()
    x = t.argument("tensor<1x64x56x56xf32>")
    q = t.op("qcc.quantize", [x], f"tensor<1x64x56x56x{quantized(8, False, 0.05, 100)}>")
    w = t.constant(rng.integers(-2, 3, (64, 64, 3, 3)).astype(np.int8), f"tensor<64x64x3x3x{quantized(8, True, 0.1, 0)}>")
    attributes = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    a = t.op("qcc.conv2d", [q, w], "tensor<1x64x56x56xi32>", attributes)
    y = t.op("qcc.dequantize", [a], "tensor<1x64x56x56xf32>", "multiplier = dense<0.005> : tensor<1xf32>")
    (tmp_path / "model.mlir").write_text(t.module(y))
    given = rng.normal(size=(1, 64, 56, 56)).astype(np.float32)
    plain = qcc.compile(tmp_path / "model.mlir")
    if not any("winograd" in step["codelet"] for step in plain.info["steps"]):
        pytest.skip("this CPU has no Winograd codelet")
    for coding in ("none", "rans"):
        qcc.compile(tmp_path / "model.mlir", coding=coding).save(tmp_path / "model.so")
        loaded = qcc.load(tmp_path / "model.so", threads=2)
        np.testing.assert_array_equal(loaded(given), plain(given))
        (row,) = [row for row in loaded.report["layers"] if row["op"] == "conv2d"]
        assert row["stored_bits"] < (8 if coding == "none" else 1.05 * row["entropy_bits"]) + 8 * 400 / row["weights"]


def _sparse(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A 3x3 and a 1x1 layer of 90 % zeros."""
    t = Text()
    q = t.op("qcc.quantize", [t.argument("tensor<1x128x14x14xf32>")], f"tensor<1x128x14x14x{quantized(8, False, 0.05, 100)}>")
    for kernel in (3, 1):
        w = (rng.integers(-100, 101, (128, 128, kernel, kernel)) * (rng.random((128, 128, kernel, kernel)) < 0.1)).astype(np.int8)
        w = t.constant(w, f"tensor<128x128x{kernel}x{kernel}x{quantized(8, True, 0.1, 0)}>")
        pad = f"{kernel // 2}, {kernel // 2}, {kernel // 2}, {kernel // 2}"
        attributes = f"strides = array<i64: 1, 1>, padding = array<i64: {pad}>, dilations = array<i64: 1, 1>, groups = 1 : i64"
        a = t.op("qcc.conv2d", [q, w], "tensor<1x128x14x14xi32>", attributes)
        q = t.op(
            "qcc.requantize",
            [a],
            f"tensor<1x128x14x14x{quantized(8, False, 0.05, 100)}>",
            'multiplier = dense<0.002> : tensor<1xf32>, mode = "f32"',
        )
    (tmp_path / "model.mlir").write_text(t.module(t.op("qcc.dequantize", [q], "tensor<1x128x14x14xf32>")))
    return tmp_path / "model.mlir"


@pytest.mark.slow
def test_layers_with_zeros_run_without_them_from_coded_weights(tmp_path: Path) -> None:
    """What is stored are the bits of all weights; what runs is what runs uncoded, unless weights are decoded in every run."""
    rng = np.random.default_rng(8)
    model, given = _sparse(tmp_path, rng), rng.normal(size=(1, 128, 14, 14)).astype(np.float32) * 3
    plain = qcc.compile(model, storage="block")
    if sum("sparse_pixels" in step["codelet"] for step in plain.info["steps"]) != 2:
        pytest.skip("this CPU has no codelet without zero blocks")
    expected = plain(given)
    for decode in ("load", "stream"):
        qcc.compile(model, storage="block", coding="rans", decode=decode).save(tmp_path / "model.so")
        loaded = qcc.load(tmp_path / "model.so", threads=2)
        np.testing.assert_array_equal(loaded(given), expected)
        assert sum("sparse_pixels" in step["codelet"] for step in loaded.info["steps"]) == (2 if decode == "load" else 0)
        row = next(row for row in loaded.report["layers"] if row["op"] == "conv2d")
        assert ("keep their zeros" in row["facts"]["storage_reason"]) == (decode == "stream")
        assert row["stored_bits"] < 1.05 * row["entropy_bits"] + 8 * 600 / row["weights"]


RNG = np.random.default_rng(6)
SOUND, BLOCK = image_of(
    [
        Recipe(PANELS_F32, 16, 2, **coded(RNG, (2, 40, 24), 1, 6, 2)),  # type: ignore[arg-type]
        *[recipe_of(RNG, layout) for layout in LAYOUTS[1:]],
    ],
    "rans",
    RNG,
)


@draws(200)
@given(st.data())
def test_damaged_recipes_are_an_error_or_other_weights_but_never_a_crash(data: st.DataObject) -> None:
    image, front = SOUND.data.copy(), 64 + 32 * len(SOUND.entries)
    for _ in range(data.draw(st.integers(1, 3))):
        image[data.draw(st.integers(front, front + 64 * len(LAYOUTS) - 1) | st.integers(0, image.size - 1))] = data.draw(
            st.integers(0, 255)
        )
    status, _ = decode_in_c(image, BLOCK.size)
    assert status in (0, BAD_CPU, BAD_WEIGHTS)


@pytest.mark.parametrize("field", [4, 8, 12, 16, 24, 32, 36, 40, 44])
def test_a_recipe_that_contradicts_its_entry_is_found(field: int) -> None:
    """No such layout; sizes of the source, and of levels and scales, that are enormous."""
    image = SOUND.data.copy()
    record = 64 + 32 * len(SOUND.entries) + 64 * LAYOUTS.index(PANELS_F32)
    image[record + field : record + field + 4] = 255
    assert decode_in_c(image, BLOCK.size)[0] == BAD_WEIGHTS


def test_places_that_codelets_follow_are_the_compilers_or_an_error() -> None:
    """Whatever byte of the record, of what is known of cells or of the weights is another one."""
    rng = np.random.default_rng(7)
    recipe = pixel_units(rng)
    while not recipe.ordered or len(recipe.cells) < 3:
        recipe = pixel_units(rng)
    image, block = image_of([recipe], "rans", rng)
    assert decode_in_c(image.data, block.size)[0] == 0
    record = 64 + 32 * len(image.entries)
    for at in [*range(record, record + 64), *rng.integers(record + 64, image.data.size, 2000)]:
        damaged = image.data.copy()
        damaged[at] ^= 1 << int(rng.integers(0, 8))
        status, found = decode_in_c(damaged, block.size)
        made = recipe.apply().size
        assert status == BAD_WEIGHTS or np.array_equal(found[:made], block[:made])
