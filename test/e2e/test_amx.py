"""Whole programs for a CPU with AMX, executed in software where the machine has none, and the instructions they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler import driver
from qcc.compiler.emit.machine_code import assembly
from qcc.compiler.options import CompileOptions
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.mlir import create_context, parse_module
from test.emulation import amx
from test.property.test_codelets import _convolution
from test.property.test_tile_contraction import CASE

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = Path(__file__).parents[2] / "build" / "e2e-models"


def test_a_layer_of_resnet_is_made_of_tile_instructions() -> None:
    """3x3, 64 channels: per step of the reduction two loads of pixels, two of weights, four products."""
    text, _ = _convolution(CASE | {"c": 64, "o": 64, "size": (14, 56)})
    module = driver.start(parse_module(text, create_context()), CompileOptions(cpu="sapphirerapids")).run_to("llvm")
    code = assembly(module)
    count = {name: code.count(name) for name in ("ldtilecfg", "tilerelease", "tileloadd", "tdpbusd", "tilestored")}
    assert count["ldtilecfg"] == count["tilerelease"] == 1
    assert count["tdpbusd"] % 4 == 0 and count["tdpbusd"] > 0
    assert count["tilestored"] == 4
    assert count["tileloadd"] == 4 + count["tdpbusd"]  # the bias, then as many loads as products


@pytest.mark.slow
def test_digits_on_tiles_equal_digits_on_vectors() -> None:
    images = np.load(EXAMPLES / "digits.npz")["images"][:5]
    before = amx.count("tdpbusd")
    with amx.sapphire_rapids() as target:
        tiles = qcc.compile(EXAMPLES / "digits_cnn.onnx", target=target, threads=2)
        vectors = qcc.compile(EXAMPLES / "digits_cnn.onnx", target=CpuTarget("icelake-server"), threads=2)
        for image in images:
            np.testing.assert_array_equal(tiles(image[None]), vectors(image[None]))
    assert amx.machine_has_amx() or amx.count("tdpbusd") > before


@pytest.mark.slow
def test_encoder_on_tiles_equals_encoder_on_vectors() -> None:
    """Linear layers and the attention's computed products; some 90 thousand tile products."""
    file = MODELS / "encoder.onnx"
    if not file.exists():
        pytest.skip("python -m test.e2e.models makes the model")
    with amx.sapphire_rapids() as target:
        tiles, vectors = (qcc.compile(file, target=t, threads=2) for t in (target, CpuTarget("icelake-server")))
        inputs = [np.random.default_rng(0).standard_normal(s.shape).astype(s.numpy) for s in tiles.inputs]
        np.testing.assert_array_equal(tiles(*inputs), vectors(*inputs))
