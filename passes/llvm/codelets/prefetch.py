"""Prefetching of weights: while a block of weights is in use, what lies behind it is brought to the second-level cache.

At batch 1 every weight is read from memory once per run, and the first pixels of a block would wait for it. The bytes are fetched evenly
over all pixels of the image instead. Weights lie in the order of the layers, so what is ahead of a layer's last block is the next layer.
"""

from __future__ import annotations

import math

from qcc.dialects.codelet import ELEMENT_BYTES, Contraction
from qcc.passes.llvm.codelets.builder import Address, Builder, Index

LEAST_BYTES = (
    160 * 1024
)  # how far ahead, at least: the same in all layers, so that none leaves a gap in front of the next; fits an L2 twice
LINE_BYTES = 64


class Ahead:
    """The share of one register tile in prefetching: `pixels` pixels from (n, h, w) on and a reduction of `steps` steps.

    `weights` is where the current block begins.
    """

    def __init__(self, b: Builder, c: Contraction, weights: Address, place: tuple[Index, Index, Index], pixels: int, steps: int) -> None:
        self.b = b
        images, _, height, width, _ = c.sizes
        own = c.w.strides[0] != 0  # every matrix has its weights, which lie one behind the other
        used_bytes = c.w.strides[0 if own else -1] * ELEMENT_BYTES[c.w.element]
        per_pixel = math.ceil(used_bytes / (height * width * (1 if own else images)))
        self.step_bytes = math.ceil(per_pixel * pixels / steps) if c.ahead else 0
        pixel = b.dot((0 if own else place[0], *place[1:]), (height * width, width, 1))
        again = height * width * (1 if own else images) > pixels  # a block that is read once only passes through the cache
        self.start = b.at(weights, b.mul(pixel, per_pixel)) + max(used_bytes if again else 0, LEAST_BYTES)

    def prefetch(self, step: Index) -> None:
        """The lines that step `step` of the reduction fetches."""
        if self.step_bytes:
            first = self.b.at(self.start, self.b.mul(step, self.step_bytes))
            for line in range(0, self.step_bytes, LINE_BYTES):
                self.b.prefetch(first + line)
