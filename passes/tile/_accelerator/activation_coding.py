"""How tensors between layers are coded in DRAM, where the accelerator's load and store units know more than raw pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.accelerator import Configuration
from qcc.dialects.activation_codings import code, slot_words
from qcc.passes.tile._accelerator.layer import Buffer, Layer, Placement
from qcc.passes.tile._accelerator.tiling import Chunk
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS

_SAMPLE = 64  # pixels


def choose(layers: list[Layer], chunks: list[list[Chunk]], c: Configuration, context: Any) -> None:
    """Choose each buffer's coding, the one that is expected to move the fewest words, and give its pixels room for it.

    A pixel is coded as a whole, so every layer must write and read whole pixels: no parts of concatenations, no channels in several
    chunks. What the host reads or writes is raw. Facts per layer that writes such a tensor: activation_coding.
    """
    buffers: dict[int, Buffer] = {}
    whole: dict[int, bool] = {}
    writers: dict[int, list[Layer]] = {}
    for layer, cut in zip(layers, chunks, strict=True):
        placed: list[tuple[Placement, bool]] = [(layer.source, all(_reads_all(part, layer.source) for k in cut for part in k.parts))]
        written = cut[0].words if len(cut) == 1 else 0
        placed.append((layer.destination, written == layer.destination.words))
        if layer.residual is not None:
            placed.append((layer.residual.source, written == layer.residual.source.words))
        for place, complete in placed:
            if (buffer := place.buffer) is not None:
                buffers[id(buffer)] = buffer
                alone = place.offset == 0 and place.words * place.planes == buffer.pixel_words
                whole[id(buffer)] = whole.get(id(buffer), True) and complete and alone
        if layer.destination.buffer is not None:
            writers.setdefault(id(layer.destination.buffer), []).append(layer)
    for key, buffer in buffers.items():
        if buffer.use == "arena" and whole[key] and len(writers.get(key, ())) == 1:
            _code(buffer, writers[key][0], c, context)


def _reads_all(part: Any, source: Placement) -> bool:
    return part.first == 0 and part.words == source.words


def _code(buffer: Buffer, writer: Layer, c: Configuration, context: Any) -> None:
    placed, raw = writer.destination, buffer.pixel_words
    sample = _pixels(placed, buffer, np.random.default_rng(0))
    expected = {name: float(code(name, sample)[1].mean()) for name in ACTIVATION_CODINGS[: c.activation_codings]}
    buffer.coding = min(expected, key=expected.__getitem__)  # the earlier and simpler one of equals
    buffer.pixel_words = slot_words(buffer.coding, raw)
    words = ", ".join(f"{name} {count:.1f}" for name, count in expected.items())
    context.fact(writer.name, activation_coding=f"{buffer.coding}; words a pixel expected at {buffer.zeros:.0%} zeros: {words}")


def _pixels(placed: Placement, buffer: Buffer, rng: np.random.Generator) -> np.ndarray:
    """Random pixels [n, words, K/8] with the measured share of zeros, the others even over the tensor's range.

    Values are seldom that large, upper planes hold fewer bits: there will be less.
    """
    values = rng.integers(placed.low, placed.high + 1, (_SAMPLE, len(placed.positions)))
    values[rng.random(values.shape) < buffer.zeros] = buffer.zero
    spread = np.zeros((_SAMPLE, placed.words * placed.word_bits), np.int64)
    spread[:, placed.positions] = values
    return bitplanes.pack(spread, placed.planes, placed.word_bits).reshape(_SAMPLE, -1, placed.word_bits // 8)
