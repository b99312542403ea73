"""Operators that neither qcc nor torch-mlir brings to linalg, or that torch-mlir brings there wrongly, as others that both know.

`decompositions` is the one table. A rule has the operator's own signature; one that returns NotImplemented leaves its call as it is.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table, get_decompositions

from qcc.compiler.frontend import torch_functions, torch_matrices, torch_recurrent, torch_resampling
from qcc.dialects.mlir import create_context

Rule = Callable[..., Any]
aten = torch.ops.aten


def decompositions(graph: Any) -> dict[Any, Rule]:
    """Rule per operator for the operators in `graph`, torch's own or one of this file."""
    made = {
        target: _pad if target is aten.pad.default else _composite(target)
        for target in {node.target for node in graph.nodes if _is_composite(node)}
    }
    return _unknown() | get_decompositions(_LEFT_TO_TORCH) | made | _OURS


@functools.cache
def _unknown() -> dict[Any, Rule]:
    """Torch's own decomposition of every operator that the torch dialect has no operation for, such as `addr`."""
    return {
        target: rule
        for target, rule in decomposition_table.items()
        if isinstance(target, torch._ops.OpOverload) and target not in _RESTORED
        and not target.has_kernel_for_dispatch_key(_COMPOSITE) and not _is_known(target)
    }  # fmt: skip


@functools.cache
def _context() -> Any:
    return create_context()


def _is_known(target: Any) -> bool:
    """Whether the torch dialect has an operation for `target`."""
    return _context().is_registered_operation(f"torch.{str(target).removesuffix('.default')}")


def _is_composite(node: Any) -> bool:
    """Whether torch computes `node` with other operators, and the torch dialect or torch-mlir does not know this one."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target.has_kernel_for_dispatch_key(_COMPOSITE):
        return False
    if target in torch_recurrent.CELLS:
        return False
    if target is aten.pad.default:
        return "circular" in node.args[2:3] or min(node.args[1]) < 0
    return target in _NOT_LOWERED or not _is_known(target)


def _composite(target: Any) -> Rule:
    """What torch itself computes `target` with (`target.decompose` would come back to the table)."""
    return functools.partial(target._op_dk, _COMPOSITE)


_NOT_LOWERED = (
    aten.__and__.Tensor, aten.__or__.Tensor, aten.__xor__.Tensor, aten.meshgrid.default, aten.meshgrid.indexing,
    aten.grid_sampler.default,
)  # fmt: skip
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


_RESTORED = (aten._native_batch_norm_legit_no_training.default,)  # `torch_program` turns it into one the dialect has

_LEFT_TO_TORCH = [
    aten.im2col.default,
    aten.grid_sampler_2d.default,  # torch-mlir samples wrong places
    aten.softshrink.default,  # torch-mlir subtracts lambda from negative values too
    aten.xlogy.Tensor, aten._weight_norm_interface.default,
]  # fmt: skip


def _log_sigmoid(x: Any) -> Any:
    return -torch.nn.functional.softplus(-x)  # log(sigmoid(x)), which is what torch-mlir computes, is -inf below -88


def _logsumexp(x: Any, dim: Sequence[int], keepdim: bool = False) -> Any:
    top = x.amax(dim, keepdim=True)
    top = torch.where(top.abs() == float("inf"), 0.0, top)
    result = (x - top).exp().sum(dim, keepdim=True).log() + top
    return result if keepdim else _squeeze(result, dim)


def _squeeze(x: Any, dims: Sequence[int]) -> Any:
    gone = {d % x.dim() for d in dims if x.shape[d] == 1}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


def _is_finite(x: Any) -> Any:
    return x.abs() < float("inf")  # torch asks whether x == x, which torch-mlir takes for always true


def _fmod(x: Any, divisor: float) -> Any:
    kind = x.dtype if isinstance(divisor, int) or x.is_floating_point() else torch.get_default_dtype()
    return torch.fmod(x, torch.full((), divisor, dtype=kind))


def _power(x: Any, exponent: float) -> Any:
    """Powers of integers are products, which wrap as torch's do."""
    if x.is_floating_point() or x.is_complex() or not isinstance(exponent, int) or not 0 < exponent < 64:
        return NotImplemented
    return functools.reduce(operator.mul, [x] * exponent)


def _integer_power(x: Any, exponent: Any) -> Any:
    """The product of x^(2^bit) for the bits of the exponent, which wraps as torch's does; 1 / x^n is zero but for 1 and -1."""
    if x.is_floating_point() or exponent.is_floating_point() or torch.bool in (x.dtype, exponent.dtype):
        return NotImplemented
    kind = torch.promote_types(x.dtype, exponent.dtype)
    x, exponent = torch.broadcast_tensors(x.to(kind), exponent.to(kind))
    odd = (exponent & 1) != 0
    result, square, rest = torch.ones_like(x), x, exponent
    for _ in range(torch.iinfo(kind).bits - 1):
        result = torch.where((rest & 1) != 0, result * square, result)
        square, rest = square * square, rest >> 1
    below = torch.where(x == 1, 1, torch.where(x == -1, torch.where(odd, -1, 1), 0))
    return torch.where(exponent < 0, below, result).to(kind)


def _multiply(x: Any, y: Any) -> Any:
    """Products of complex numbers as products of their parts."""
    if not any(a.is_complex() if isinstance(a, torch.Tensor) else isinstance(a, complex) for a in (x, y)):
        return NotImplemented
    (a, b), (c, d) = _parts(x), _parts(y)
    return torch.complex(a * c - b * d, a * d + b * c)


def _parts(x: Any) -> Any:
    """Real and imaginary part."""
    if not isinstance(x, torch.Tensor):
        return x.real, x.imag
    return torch.view_as_real(x).unbind(-1) if x.is_complex() else (x, torch.zeros_like(x))


def _complex(real: Any, imaginary: Any) -> Any:
    return torch.view_as_complex(torch.stack(torch.broadcast_tensors(real, imaginary), -1))


def _angle(x: Any) -> Any:
    real, imaginary = _parts(x)
    return torch.atan2(imaginary, real)


def _hypot(x: Any, y: Any) -> Any:
    return (x * x + y * y).sqrt()


def _is_negative(x: Any) -> Any:
    """The sign bit, which a negative zero has and a comparison does not see."""
    return (x < 0) | (x == 0) & (1 / x < 0) if x.is_floating_point() else x < 0


def _copysign(x: Any, y: Any) -> Any:
    return torch.where(_is_negative(y), -x.abs(), x.abs())


def _abs(x: Any) -> Any:
    return _hypot(*_parts(x)) if x.is_complex() else NotImplemented


def _bitwise(name: str, x: Any, value: int) -> Any:
    return getattr(torch, name)(x, torch.full((), value, dtype=x.dtype))


def _median(x: Any, dim: int, keepdim: bool = False) -> Any:
    return torch.kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)  # the lower of two in the middle


def _median_of_all(x: Any) -> Any:
    return _median(x.flatten(), 0)[0]


def _searchsorted(
    boundaries: Any, x: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None, sorter: Any = None
) -> Any:
    """How many boundaries lie below each value (on it too, to its right)."""
    if sorter is not None:
        boundaries = boundaries.gather(-1, sorter)
    if boundaries.dim() > 1:
        boundaries = boundaries.unsqueeze(-2)
    below = torch.le if right or side == "right" else torch.lt
    return below(boundaries, x.unsqueeze(-1)).sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _cdist(a: Any, b: Any, p: float = 2.0, compute_mode: int | None = None) -> Any:
    del compute_mode
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


def _windows(size: int, count: int) -> Any:
    """What each of `count` adaptive windows over `size` elements covers, as indices [count, width].

    Windows differ in size by one: the shorter repeat their last element.
    """
    starts, ends = (torch.arange(count) * size // count, (torch.arange(1, count + 1) * size + count - 1) // count)
    width = max(-(-(i + 1) * size // count) - i * size // count for i in range(count))
    return torch.minimum(starts[:, None] + torch.arange(width), ends[:, None] - 1)


def _adaptive_max_pool2d(x: Any, sizes: Sequence[int]) -> Any:
    """The maximum and its place in each window; torch-mlir unrolls windows that differ in size, without end and wrongly."""
    (height, width), (h, w) = x.shape[-2:], sizes
    if height % h == 0 and width % w == 0:
        return NotImplemented
    rows, columns = _windows(height, h), _windows(width, w)
    places = rows[:, None, :, None] * width + columns[None, :, None, :]  # [h, w, kh, kw]
    windows = x.flatten(-2).index_select(-1, places.flatten()).unflatten(-1, (h, w, -1))  # [..., h, w, kh * kw]
    largest, which = windows.max(-1)
    return largest, places.flatten(-2).expand(windows.shape).gather(-1, which.unsqueeze(-1)).squeeze(-1)


def _adaptive_max_pool1d(x: Any, sizes: Sequence[int]) -> Any:
    largest, places = aten.adaptive_max_pool2d(x.unsqueeze(-2), [1, *sizes])
    return largest.squeeze(-2), places.squeeze(-2)


def _fold(
    x: Any, size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Any:
    """The sum of overlapping blocks is the transposed convolution that puts element k of a block at place k of its window."""
    taps = kernel[0] * kernel[1]
    channels = x.shape[-2] // taps
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    counts = [(n + 2 * p - span) // s + 1 for n, p, span, s in zip(size, padding, spans, stride, strict=True)]
    rest = [n - (c - 1) * s + 2 * p - span for n, c, s, p, span in zip(size, counts, stride, padding, spans, strict=True)]
    weight = torch.eye(taps, dtype=x.dtype).repeat(channels, 1).view(-1, 1, *kernel)
    blocks = x.view(*x.shape[:-1], *counts)
    return torch.nn.functional.conv_transpose2d(blocks, weight, None, stride, padding, rest, channels, dilation)


def _pad(x: Any, sizes: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """A negative size crops, which torch-mlir reads past the end for; circular padding is what is at the other end."""
    for axis, (left, right) in enumerate(zip(sizes[::2], sizes[1::2], strict=True), 1):
        x = x.narrow(-axis, max(-left, 0), x.shape[-axis] + min(left, 0) + min(right, 0))
        if mode == "circular":
            size, left, right = x.shape[-axis], max(left, 0), max(right, 0)
            x = torch.cat([x.narrow(-axis, size - left, left), x, x.narrow(-axis, 0, right)], -axis)
    sizes = [max(size, 0) for size in sizes]
    return x if mode == "circular" or not any(sizes) else _composite(aten.pad.default)(x, sizes, mode, value)


def _constant_pad(x: Any, sizes: Sequence[int], value: float = 0) -> Any:
    return _pad(x, sizes, "constant", value) if min(sizes) < 0 else NotImplemented


_OURS: dict[Any, Rule] = {
    **torch_functions.RULES,
    **torch_matrices.RULES,
    **torch_resampling.RULES,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.logsumexp.default: _logsumexp,
    aten.squeeze.dims: _squeeze,
    aten.isfinite.default: _is_finite,
    aten.fmod.Scalar: _fmod,
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _integer_power,
    aten.hypot.default: _hypot,
    aten.mul.Tensor: _multiply,
    aten.complex.default: _complex,
    aten.angle.default: _angle,
    aten.col2im.default: _fold,
    aten.constant_pad_nd.default: _constant_pad,
    aten.signbit.default: _is_negative,
    aten.copysign.Tensor: _copysign,
    aten.abs.default: _abs,
    aten.median.dim: _median,
    aten.median.default: _median_of_all,
    aten.searchsorted.Tensor: _searchsorted,
    aten._cdist_forward.default: _cdist,
    aten.cdist.default: _cdist,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
    aten.adaptive_max_pool1d.default: _adaptive_max_pool1d,
    **{
        getattr(aten, f"bitwise_{name}").Scalar: functools.partial(_bitwise, f"bitwise_{name}")
        for name in ("and", "or", "xor")
    },
}  # fmt: skip
