"""Single PyTorch operations that have no codelet: compiled through the whole pipeline, they give what PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import qcc
from test.tiers import slow_except

torch = pytest.importorskip("torch")
functional = torch.nn.functional


class Operation(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Any) -> Any:
        return self.function(*values)


def normal(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def whole(high: int, *shape: int) -> Any:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(high))


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "cumsum": (lambda x: torch.cumsum(x, 1), (normal(3, 7),)),
    "sort": (lambda x: torch.sort(x, dim=1)[0], (normal(3, 7),)),
    "topk": (lambda x: torch.topk(x, 3, dim=1)[0], (normal(3, 7),)),
    "argmax": (lambda x: torch.argmax(x, 1), (normal(3, 7),)),
    "gather": (lambda x, i: torch.gather(x, 1, i), (normal(3, 7), whole(7, 3, 2))),
    "index": (lambda x, i: x[i], (normal(9, 7), whole(9, 4))),
    "scatter_add": (lambda x, i, s: torch.scatter_add(x, 1, i, s), (normal(3, 7), whole(7, 3, 2), normal(3, 2))),
    "where": (lambda x, y: torch.where(x > y, x, y * 2), (normal(3, 7), normal(4, 6)[:3, :1])),
    "tril": (torch.tril, (normal(7, 7),)),
    "pixel_shuffle": (lambda x: torch.pixel_shuffle(x, 2), (normal(1, 8, 3, 3),)),
    "upsample_nearest": (lambda x: functional.interpolate(x, scale_factor=2), (normal(1, 4, 3, 3),)),
    "conv3d": (functional.conv3d, (normal(1, 2, 5, 5, 5), normal(3, 2, 3, 3, 3))),
    "conv_transpose2d": (lambda x, w: functional.conv_transpose2d(x, w, stride=2), (normal(1, 4, 5, 5), normal(4, 3, 3, 3))),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), (normal(2, 3, 4), normal(2, 4, 5))),
    "variance": (lambda x: torch.var(x, 1), (normal(3, 7),)),
    "log_softmax": (lambda x: torch.log_softmax(x, 1), (normal(3, 7),)),
    "power": (lambda x: x.abs() ** 1.7, (normal(3, 7),)),
    "atan2": (torch.atan2, (normal(3, 7), normal(7, 3).T)),
    "int64": (lambda x: x * 3 + 1, (whole(9, 3, 7),)),
    "float64": (lambda x: torch.sin(x) * 2, (normal(3, 7).double(),)),
    "float16": (lambda x: x * x + x, (normal(3, 7).half(),)),
    "bfloat16": (lambda x: x * x + x, (normal(3, 7).bfloat16(),)),
    "float64_moved": (lambda x: torch.cat([x.T.reshape(3, 7), torch.cos(x)], 1), (normal(3, 7).double(),)),
    "cast": (lambda x: x.to(torch.int32).to(torch.float32) * 2, (normal(3, 7) * 5,)),
    "group_norm": (lambda x: functional.group_norm(x, 2), (normal(2, 4, 5, 5),)),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 3), (normal(2, 4, 9),)),
    "product": (lambda x: torch.prod(x, 1), (normal(3, 7),)),
    "diagonal": (torch.diagonal, (normal(7, 7),)),
    "masked_fill": (lambda x: x.masked_fill(x < 0, -1.0), (normal(3, 7),)),
    "one_hot": (lambda i: functional.one_hot(i, 5), (whole(5, 4),)),
    "sum_of_all": (lambda x: x.sum(), (normal(3, 7),)),
    "mask": (lambda x, y: torch.logical_and(x > y, x > 0), (normal(3, 7), normal(7, 3).T)),
    "two_results": (lambda x: (torch.cumsum(x, 0), torch.argmax(x, 0)), (normal(3, 7),)),
}


ROWS = normal(9, 4)
INDEXING: dict[str, Callable[..., Any]] = {
    "index": lambda x, i: x[i],
    "gather": lambda x, i: torch.gather(x, 0, i.reshape(1, -1)),
    "embedding": lambda x, i: functional.embedding(i, x),
    "scatter_add": lambda x, i: torch.scatter_add(x, 0, i.reshape(-1, 1), torch.ones(4, 1)),
    "scatter_add_columns": lambda x, i: torch.scatter_add(x, 1, i.reshape(-1, 1), torch.ones(4, 1)),
}


@pytest.mark.parametrize("name", slow_except(INDEXING, "gather"))
def test_an_index_out_of_range_neither_crashes_nor_reads_other_memory(name: str) -> None:
    """PyTorch raises an error; a compiled model takes the nearest element, and is right again in the next call."""
    function = INDEXING[name]
    inside = torch.tensor([1, 2, 3, 0])
    executable = qcc.compile(Operation(function).eval(), example_inputs=(ROWS, inside), threads=1)
    wild = executable(ROWS, torch.tensor([-(10**14), 2, 10**14, 0]))
    assert wild.abs().max() <= ROWS.abs().max() + 4
    torch.testing.assert_close(executable(ROWS, inside), function(ROWS, inside))


@pytest.mark.parametrize("name", slow_except(CASES, "argmax", "where", "two_results"))
def test_an_operation_without_a_codelet(name: str) -> None:
    function, values = CASES[name]
    executable = qcc.compile(Operation(function).eval(), example_inputs=values, threads=1)
    found, expected = executable(*values), function(*values)
    if values[0].dtype in (torch.float16, torch.bfloat16):  # computed in f32 and rounded once, PyTorch rounds after every operation
        expected = function(*(x.float() for x in values)).to(values[0].dtype)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    for y, wanted in zip(found, expected, strict=True):
        assert y.dtype == wanted.dtype
        torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-6)
