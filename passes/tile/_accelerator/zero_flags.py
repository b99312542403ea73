"""Which tensors between layers lie in DRAM with zero flags, where the accelerator's load and store units know them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.accelerator import Configuration
from qcc.dialects.zero_flags import expected_words, flag_words
from qcc.passes.tile._accelerator.layer import Buffer, Layer, Placement
from qcc.passes.tile._accelerator.tiling import Chunk


def choose(layers: list[Layer], chunks: list[list[Chunk]], c: Configuration, context: Any) -> None:
    """Mark the buffers that are expected to move fewer words with flags, and give their pixels room for these.

    A pixel is coded as a whole, so every layer must write and read whole pixels: no parts of concatenations, no channels in several
    chunks. What the host reads or writes has no flags. Facts per layer that writes such a tensor: zero_flags.
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
    held = len(np.unique(writer.destination.positions // 8)) * writer.destination.planes
    raw = buffer.pixel_words
    expected = expected_words(raw, held, buffer.zeros, c.word_bytes)
    text = f"{expected:.1f} instead of {raw} words a pixel expected at {buffer.zeros:.0%} zeros"
    buffer.coded = expected < raw
    context.fact(writer.name, zero_flags=text if buffer.coded else f"{text}, not used")
    if buffer.coded:
        buffer.pixel_words += flag_words(raw)
