"""Resampling that torch-mlir has no lowering for: nearest-exact selects constant places, antialiased filters are constant matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten
CUBIC = -0.5  # the parameter of the antialiased cubic kernel (R. G. Keys, 1981)


def _nearest_exact(x: Any, sizes: Sequence[int] | None, scales: Sequence[float] | None) -> Any:
    """x [n, c, ...] at the places floor((i + 1/2) * ratio) of every axis; the sizes of the result are given, or their scales."""
    given = x.shape[2:]
    if sizes is None:
        sizes = [int(size * scale) for size, scale in zip(given, scales or [], strict=True)]
    for axis, (size, scale) in enumerate(zip(sizes, scales or [None] * len(sizes), strict=True), 2):
        places = ((torch.arange(size) + 0.5) * _ratio(x.shape[axis], size, scale)).floor().to(torch.int64)
        x = x.index_select(axis, places.clamp(max=x.shape[axis] - 1))
    return x


def _ratio(given: int, size: int, scale: float | None) -> float:
    """Elements of the source for one of the result."""
    return given / size if scale is None else 1 / scale


def _antialiased(reach: float, kernel: Callable[[Any], Any]) -> Callable[..., Any]:
    """The rule for a separable `kernel` that is zero beyond `reach`, widened where the result is smaller."""

    def rule(x: Any, sizes: Sequence[int], align_corners: bool, *scales: float | None) -> Any:
        rows, columns = (
            _filter(x.shape[axis], size, align_corners, scale, reach, kernel).to(x.dtype)
            for axis, size, scale in zip((-2, -1), sizes, scales or (None, None), strict=True)
        )
        return rows @ (x @ columns.mT)

    return rule


def _filter(given: int, size: int, align_corners: bool, scale: float | None, reach: float, kernel: Callable[[Any], Any]) -> Any:
    """Weights [size, given] of every element of the source in every one of the result."""
    ratio = (given - 1) / max(size - 1, 1) * (size > 1) if align_corners else _ratio(given, size, scale)
    width = max(ratio, 1.0)
    centers = ((torch.arange(size) + 0.5) * ratio)[:, None]  # torch aligns no corners here either, only their distance
    places = torch.arange(given)
    first, last = (centers - reach * width + 0.5).int().clamp(min=0), (centers + reach * width + 0.5).int()  # as torch cuts the window
    weights = torch.where((places >= first) & (places < last), kernel(((places - centers + 0.5) / width).abs()), 0.0)
    return weights / weights.sum(1, keepdim=True)


def _linear(distance: Any) -> Any:
    return (1 - distance).clamp(min=0.0)


def _cubic(distance: Any) -> Any:
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * CUBIC
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


RULES = {
    aten._upsample_nearest_exact1d.vec: _nearest_exact,
    aten._upsample_nearest_exact2d.vec: _nearest_exact,
    aten._upsample_nearest_exact3d.vec: _nearest_exact,
    aten._upsample_bilinear2d_aa.default: _antialiased(1.0, _linear),
    aten._upsample_bicubic2d_aa.default: _antialiased(2.0, _cubic),
}
