"""Predicted time of float layers before there are codelets: the direct loop, or Winograd's where that is faster.

Times are those of one thread of a shipped machine description: where a model is compiled must not change its code.
"""

from __future__ import annotations

import math

from qcc.dialects import codelet_cost
from qcc.dialects.codelet import Contraction, Operand
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.passes.tile.codelets import winograd
from qcc.passes.tile.codelets.register_tile import choose_chunks, choose_tile

Sizes = tuple[int, int, int, int]


def linear(isa: str, rows: int, out: int, k: int, element: str = "f32") -> Contraction:
    """The codelet of x [rows, k] times weights [out, k] of `element`, as `products` makes it of x and y that are row-major."""
    return _contraction(isa, (1, 1, rows, out), (1, 1), k, k, element)


def convolution_microseconds(isa: str, sizes: Sizes, channels: int, kernel: tuple[int, int], *, plain: bool, weights_bytes: int) -> float:
    """A convolution with results [n, h, w, c] of `sizes` of `kernel` windows of x; `plain`: of steps, dilations and groups of 1."""
    n, height, width, out = sizes
    direct = _contraction(isa, sizes, (kernel[0], 1), kernel[1] * channels, channels, "f32")
    found = microseconds(isa, direct, weights_bytes)
    if plain and kernel == (3, 3) and ISAS[isa].dot2:
        plan = winograd.fastest(isa, "lane_f32", (n, height, width), channels, out)
        found = found if plan is None else min(found, codelet_cost.winograd_measured(isa, "lane_f32") * plan.microseconds)
    return found


def microseconds(isa: str, codelet: Contraction, weights_bytes: int) -> float:
    """Of one call in a model with that many bytes of weights."""
    cost = codelet_cost.cost(codelet, shipped(isa), weights_bytes=weights_bytes)
    assert cost is not None, f"no model of {codelet.kind}"
    return cost.microseconds


def _contraction(isa: str, sizes: Sizes, taps: tuple[int, int], run: int, pixel: int, element: str) -> Contraction:
    """The direct loop: every result sums `taps` runs of x, whose pixels are `pixel` elements apart."""
    pairs = element == "bf16" and ISAS[isa].dot2_bf16
    compute, stored = ("dot2_bf16", "bf16") if pairs else ("lane_f32", "f32")
    n, height, width, out = sizes
    steps = math.prod(taps) * -(-run // codelet_cost.DEPTHS.get(compute, 1))
    tile = choose_tile(isa, compute, element, height, width, out, steps, one_row=False, summed=False)
    block = tile[2] * ISAS[isa].lanes
    products = run * math.prod(taps)
    size = {"f32": 4, "bf16": 2}[element] * out * products
    return Contraction(
        isa=isa,
        compute=compute,
        sizes=(n, 1, height, width, out),
        x=Operand(0, stored, (0, 0, width * pixel, pixel, 0)),
        w=Operand(1, element, (0, 0, 0, 0, block * products)),
        taps=taps,
        tap_strides=(0, 0),
        run=run,
        tile=tile,
        chunks=choose_chunks(tile, n, -(-out // block), height, n * height * width * out * products, size),
        operands=(),
        steps=(),
        y=Operand(2, "f32", (0, 0, 0, out, 1)),
    )
