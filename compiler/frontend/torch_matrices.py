"""Linear algebra of small square matrices in operators that torch-mlir knows, one step per row.

Matrices of more than `MOST_ROWS` rows are left to whoever names the operator that cannot be lowered. Torch raises an error for a
singular matrix while it runs; here the result is infinite or NaN.
Source: G. H. Golub, C. F. Van Loan, "Matrix Computations", 2013, sections 3.4 and 4.2.
"""

from __future__ import annotations

from typing import Any

import torch

MOST_ROWS = 16

aten = torch.ops.aten


def _inverse(a: Any) -> Any:
    return _solve(a, torch.eye(a.shape[-1], dtype=a.dtype))


def _solve(a: Any, b: Any, *, left: bool = True) -> Any:
    """x with a x = b (x a = b where not `left`), a [..., n, n]; b [..., n, k], or [..., n] for one column per matrix."""
    if b.dim() == 1 or b.shape == a.shape[:-1]:
        found = _solve(a, b.unsqueeze(-1), left=left)
        return found if found is NotImplemented else found.squeeze(-1)
    if not left:
        found = _solve(a.mT, b.mT)
        return found if found is NotImplemented else found.mT
    if not _is_small(a):
        return NotImplemented
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    n, joined = a.shape[-1], torch.cat([a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])], -1)
    return _reduced(joined, n)[0][..., n:]


def _determinant(a: Any) -> Any:
    return _reduced(a, a.shape[-1])[1] if _is_small(a) else NotImplemented


def _reduced(m: Any, n: int) -> tuple[Any, Any]:
    """m [..., n, w] with its first n columns brought to the identity by elimination with row pivoting, and their determinant [...]."""
    rows = torch.arange(n)
    determinant = torch.ones(m.shape[:-2], dtype=m.dtype)
    for k in range(n):
        chosen = m[..., k:, k].abs().argmax(-1, keepdim=True) + k  # [..., 1]
        is_chosen = (rows == chosen).unsqueeze(-1)  # [..., n, 1]
        pivot = torch.where(is_chosen, m, 0.0).sum(-2, keepdim=True)  # [..., 1, w]
        determinant = determinant * pivot[..., 0, k] * torch.where(chosen[..., 0] == k, 1.0, -1.0)
        m = torch.where(is_chosen, m[..., k : k + 1, :], m)  # row k is about to become the pivot's
        pivot = pivot / pivot[..., k : k + 1]
        m = torch.where((rows == k).unsqueeze(-1), pivot, m - m[..., k : k + 1] * pivot)
    return m, determinant


def _cholesky(a: Any, *, upper: bool = False) -> Any:
    """l with l l^T = a, lower triangular; its transpose where `upper`."""
    if not _is_small(a):
        return NotImplemented
    rows, columns = torch.arange(a.shape[-1]), list[Any]()
    for k in range(a.shape[-1]):
        column = torch.where(rows >= k, a[..., k] / a[..., k : k + 1, k].sqrt(), 0.0)  # [..., n]
        a = a - column.unsqueeze(-1) * column.unsqueeze(-2)
        columns.append(column)
    return torch.stack(columns, -2 if upper else -1)


def _solve_triangular(a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """x with a x = b (x a = b where not `left`) by substitution, one row after the other."""
    if not _is_small(a):
        return NotImplemented
    if not left:
        return _solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    n = a.shape[-1]
    found: dict[int, Any] = {}
    for i in reversed(range(n)) if upper else range(n):
        row = b[..., i : i + 1, :]
        for j, x in found.items():
            row = row - a[..., i : i + 1, j : j + 1] * x
        found[i] = row if unitriangular else row / a[..., i : i + 1, i : i + 1]
    return torch.cat([found[i] for i in range(n)], -2)


def _is_small(a: Any) -> bool:
    return a.shape[-1] <= MOST_ROWS and not a.is_complex()


RULES = {
    aten.linalg_inv.default: _inverse,
    aten.linalg_solve.default: _solve,
    aten.linalg_det.default: _determinant,
    aten.linalg_cholesky.default: _cholesky,
    aten.linalg_solve_triangular.default: _solve_triangular,
}
