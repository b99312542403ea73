"""Result shapes of the qcc operations: pure integer arithmetic, used by verifiers, importers and passes alike."""

from __future__ import annotations

from collections.abc import Sequence


def window_output(size: int, kernel: int, stride: int, dilation: int, low: int, high: int) -> int:
    """Number of positions of a window of `kernel` taps over `size` elements padded by `low` and `high` (floor mode)."""
    return (size + low + high - dilation * (kernel - 1) - 1) // stride + 1


def conv2d(x: Sequence[int], w: Sequence[int], strides: Sequence[int], padding: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """[n, o, oh, ow] of x [n, c, h, w], w [o, c/groups, kh, kw]; `padding` is [top, left, bottom, right]."""
    return [x[0], w[0], *window2d(x[2:], w[2:], strides, padding, dilations)]


def window2d(
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """[oh, ow] of a two-dimensional window; `padding` is [top, left, bottom, right]."""
    return [window_output(spatial[i], kernel[i], strides[i], dilations[i], padding[i], padding[i + 2]) for i in (0, 1)]


def broadcast(*shapes: Sequence[int]) -> list[int] | None:
    """numpy's broadcast of `shapes`, or None where they do not agree."""
    rank = max(len(s) for s in shapes)
    out = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if size != 1 and out[axis] not in (1, size):
                return None
            out[axis] = size if size != 1 else out[axis]
    return out


def matmul(a: Sequence[int], b: Sequence[int]) -> list[int] | None:
    """[..., m, n] of a [..., m, k], b [..., k, n], or None where they do not fit."""
    batch = broadcast(a[:-2], b[:-2]) if len(a) > 2 or len(b) > 2 else []
    return None if batch is None or a[-1] != b[-2] else [*batch, a[-2], b[-1]]
