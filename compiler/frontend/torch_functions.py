"""Functions that torch-mlir has no lowering for, in operators that it has."""

from __future__ import annotations

import math
from typing import Any

import torch

aten = torch.ops.aten
STIRLING_FROM = 8  # where the series below have an error under binary32's
LARGE = 1e3  # where they need no steps, whose product would leave binary32's range
INF = float("inf")


def _erfc(x: Any) -> Any:
    return 1 - torch.erf(x)


def _lgamma(x: Any) -> Any:
    """ln gamma(x) = ln gamma(x + 8) - ln(x (x + 1) ... (x + 7)) by Stirling's series; x below 1/2 by reflection.

    Source: M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions", 1964, 6.1.17 and 6.1.41.
    """
    y = torch.where(x < 0.5, 1 - x, x)
    product = math.prod([y + i for i in range(STIRLING_FROM)], start=torch.ones_like(y))
    gamma = torch.where(y > LARGE, _stirling(y), _stirling(y + STIRLING_FROM) - product.log())
    sine = (math.pi * (x - x.round())).sin().abs()
    return torch.where(x < 0.5, math.log(math.pi) - sine.log() - gamma, gamma)


def _stirling(z: Any) -> Any:
    square = 1 / (z * z)
    series = ((square / 1260 - 1 / 360) * square + 1 / 12) / z
    return (z - 0.5) * (z.log() - 1) + (0.5 * math.log(2 * math.pi) - 0.5) + series


def _digamma(x: Any) -> Any:
    """The derivative of the same: 6.3.6, 6.3.7 and 6.3.18."""
    y = torch.where(x < 0.5, 1 - x, x)
    z = y + STIRLING_FROM
    square = 1 / (z * z)
    psi = z.log() - 0.5 / z - ((square / 252 - 1 / 120) * square + 1 / 12) * square
    for i in range(STIRLING_FROM):
        psi = psi - 1 / (y + i)
    return torch.where(x < 0.5, psi - math.pi / (math.pi * x).tan(), psi)


def _running_extreme(name: str) -> Any:
    """Greatest or least element so far, and the last place where it stands: 1, 2, 4, ... steps are looked back at once."""
    sign = 1 if name == "cummax" else -1

    def rule(x: Any, dim: int) -> Any:
        if x.dim() == 0:
            return x, torch.zeros_like(x, dtype=torch.int64)
        x = x.movedim(dim, -1)
        size, step = x.shape[-1], 1
        places = torch.arange(size).expand(x.shape)
        while step < size:
            before, here = x[..., :-step], x[..., step:]
            is_better = before > here if sign > 0 else before < here
            if x.is_floating_point():
                is_better = is_better | ~(before.abs() <= INF) & (here.abs() <= INF)  # NaN is more extreme than any number
            x = torch.cat([x[..., :step], torch.where(is_better, before, here)], -1)
            places = torch.cat([places[..., :step], torch.where(is_better, places[..., :-step], places[..., step:])], -1)
            step *= 2
        return x.movedim(-1, dim), places.movedim(-1, dim)

    return rule


def _histogram(x: Any, bins: int = 100, low: float = 0, high: float = 0) -> Any:
    """How many elements lie in each of `bins` equal parts of low..high (of the range of x where both are equal)."""
    x = x.flatten()
    least, most = (x.min(), x.max()) if low == high else (torch.full((), low, dtype=x.dtype), torch.full((), high, dtype=x.dtype))
    least, most = (torch.where(least == most, end + step, end) for end, step in ((least, -1), (most, 1)))
    place = ((x - least) / (most - least) * bins).floor()
    place = torch.where(x == most, bins - 1.0, place)
    return (place == torch.arange(bins, dtype=x.dtype)[:, None]).to(x.dtype).sum(-1)


def _embedding_bag(
    table: Any, ids: Any, offsets: Any, scale_grad_by_freq: bool = False, mode: int = 0, sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Any:  # fmt: skip
    """Sum, mean or maximum of the rows of each bag, which begin at `offsets`; further results say where bags lie, for gradients."""
    del scale_grad_by_freq, sparse
    starts = offsets[:-1] if include_last_offset else offsets
    ends = torch.cat([starts[1:], torch.full((1,), ids.shape[0], dtype=starts.dtype)])
    places = torch.arange(ids.shape[0])
    inside = (places >= starts[:, None]) & (places < ends[:, None])  # [bags, ids]
    if padding_idx is not None:
        inside = inside & (ids != padding_idx % table.shape[0])
    rows = table.index_select(0, ids)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    counts = inside.to(table.dtype).sum(-1, keepdim=True)
    if mode == 2:
        found = torch.where(inside[..., None], rows, -INF).amax(1)
        found = torch.where(counts == 0, 0.0, found)
    else:
        found = inside.to(table.dtype) @ rows
        found = found / counts.clamp(min=1) if mode == 1 else found
    return found, ids, starts, starts


RULES = {
    aten.erfc.default: _erfc,
    aten.lgamma.default: _lgamma,
    aten.digamma.default: _digamma,
    aten.cummax.default: _running_extreme("cummax"),
    aten.cummin.default: _running_extreme("cummin"),
    aten.histc.default: _histogram,
    aten.embedding_bag.padding_idx: _embedding_bag,
    aten.embedding_bag.default: _embedding_bag,
}
