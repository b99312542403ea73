"""Rules for resizing images: nearest neighbours are repeated or skipped, linear and cubic interpolation is a matrix along each axis.

The words for where an output lies in the input (half_pixel, asymmetric, ...) and for rounding are those of ONNX's operator `Resize`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qcc.dialects.mlir import ir
from qcc.passes.graph._torch_layers import separable
from qcc.passes.graph._torch_movement import picked
from qcc.passes.graph._torch_reader import Declined, Reader, like, require, rule


@rule("torch.aten.upsample_bilinear2d", "torch.aten.upsample_bilinear2d.vec")
def _bilinear(r: Reader, op: Any) -> Sequence[Any]:
    x, _, corners = list(op.operands)[:3]
    r.f32(x)
    place = "align_corners" if r.flag(corners) else "half_pixel"
    matrices = [_linear(size, count, scale, place) for size, count, scale in _axes(r, x, _given_scales(r, op))]
    return [separable(r, r.builtin(x), matrices)]


def _given_scales(r: Reader, op: Any) -> list[float | None]:
    """The scale factors the model states, which torch uses instead of the ratio of sizes."""
    if op.name.endswith(".vec"):
        factors = op.operands[3]
        return [None, None] if r.is_none(factors) else [r.number(v) for v in r.items(factors)]
    found = [r.optional(v) for v in list(op.operands)[3:5]]
    return [None if v is None else float(v) for v in found]


@rule("torch.aten.__interpolate.size_list_scale_list")
def _interpolate(r: Reader, op: Any) -> Sequence[Any]:
    x, _, factors, mode, corners, _, smooth = op.operands
    r.f32(x)
    require(len(r.shape(x)) in (3, 4) and not r.flag(smooth), "resizing that smoothes, or of other than one or two axes")
    rank = len(r.shape(x)) - 2
    scales = [None] * rank if r.is_none(factors) else [r.number(v) for v in r.items(factors)]
    axes = _axes(r, x, scales if len(scales) == rank else scales * rank)
    words = re.fullmatch(r"(nearest|bilinear|linear|cubic|bicubic)_?([a-z_]*),?([a-z_]*)", str(r.scalar(mode)))
    require(words is not None, f"resizing with mode {r.scalar(mode)}")
    assert words is not None
    kind, place, rounding = words[1], words[2], words[3]
    if kind == "nearest":
        return [_nearest(r, r.builtin(x), [_sources(*axis, place or "asymmetric", rounding or "floor") for axis in axes])]
    place = place or ("align_corners" if r.optional(corners) else "half_pixel")
    matrix = _cubic if "cubic" in kind else _linear
    return [separable(r, r.builtin(x), [matrix(*axis, place) for axis in axes])]


def _axes(r: Reader, x: Any, scales: Sequence[float | None]) -> list[tuple[int, int, float]]:
    """Elements in, elements out and scale of every spatial axis."""
    sizes, counts = r.shape(x)[2:], r.shape(r.op.results[0])[2:]
    return [(size, count, scale or count / size) for size, count, scale in zip(sizes, counts, scales, strict=True)]


# -- where outputs lie -----------------------------------------------------------------------------------------------

_PLACES: dict[str, Callable[[np.ndarray, int, int, float], np.ndarray]] = {
    "asymmetric": lambda i, size, count, scale: i / scale,
    "half_pixel": lambda i, size, count, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, size, count, scale: (i + 0.5) / scale - 0.5 if count > 1 else i * 0.0,
    "half_pixel_symmetric": lambda i, size, count, scale: (i + 0.5) / scale - 0.5 + size / 2 * (1 - count / (scale * size)),
    "align_corners": lambda i, size, count, scale: i * ((size - 1) / max(count - 1, 1)),
}


def _places(size: int, count: int, scale: float, place: str) -> np.ndarray:
    """Place of every output on an axis of `size` elements, as a real number of elements; it may lie outside."""
    if place not in _PLACES:
        raise Declined(f"resizing with coordinates {place}")
    return _PLACES[place](np.arange(count), size, count, scale)


_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
}


def _sources(size: int, count: int, scale: float, place: str, rounding: str) -> np.ndarray:
    """Which input every output is."""
    if rounding not in _ROUNDINGS:
        raise Declined(f"nearest neighbours with rounding {rounding}")
    return np.clip(_ROUNDINGS[rounding](_places(size, count, scale, place)).astype(np.int64), 0, size - 1)


# -- what they are ---------------------------------------------------------------------------------------------------


def _nearest(r: Reader, x: Any, sources: Sequence[np.ndarray]) -> Any:
    """x (builtin) with elements repeated or left out along its last axes: movement, so that integers stay integers."""
    lead = len(ir.RankedTensorType(x.type).shape) - len(sources)
    for axis, source in enumerate(sources, lead):
        kind = ir.RankedTensorType(x.type)
        shape, size, count = list(kind.shape), kind.shape[axis], len(source)
        repeats = max(count // size, 1)
        if count == size * repeats and np.array_equal(source, np.arange(count) // repeats):
            if repeats > 1:
                x = r.reshape(x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
                x = r.make("qcc.broadcast", [x], like(kind, [*shape[: axis + 1], repeats, *shape[axis + 1 :]]))
                x = r.reshape(x, [*shape[:axis], count, *shape[axis + 1 :]])
        else:
            x = picked(r, x, axis, source)
    return x


def _linear(size: int, count: int, scale: float, place: str) -> np.ndarray:
    """[out, in]: every output is a mix of two inputs."""
    at = np.clip(_places(size, count, scale, place), 0, size - 1)
    low = at.astype(np.int64)
    return _mixed(size, [(low, 1 - (at - low)), (low + 1, at - low)])


def _cubic(size: int, count: int, scale: float, place: str, a: float = -0.75) -> np.ndarray:
    """[out, in]: every output is a mix of four inputs, those outside repeat the edge (Keys, 1981, with the coefficient that torch uses)."""
    at = _places(size, count, scale, place)
    low = np.floor(at).astype(np.int64)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for offset in (-1, 0, 1, 2):
        d = np.abs(at - (low + offset))
        inner, outer = ((a + 2) * d - (a + 3)) * d * d + 1, ((d - 5) * d + 8) * d * a - 4 * a
        parts.append((low + offset, np.where(d <= 1, inner, outer)))
    return _mixed(size, parts)


def _mixed(size: int, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    matrix = np.zeros((len(parts[0][0]), size))
    for source, share in parts:
        np.add.at(matrix, (np.arange(len(source)), np.clip(source, 0, size - 1)), share)
    return matrix.astype(np.float32)
