"""Operators one at a time, with awkward arguments: what torch computes is what the graph form and the compiled model compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcc
from qcc.dialects.errors import QccError
from qcc.runtime.reference import interpreter
from test.frontend.test_torch import Function, graph_form, ops
from test.tiers import slow_except

F = nn.functional
INF = float("inf")


def values(*shape: int, scale: float = 1.0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale


IMAGE = values(2, 4, 9, 7)
LINE = values(2, 4, 11)
EDGES = torch.tensor([[0.1, 0.5, -0.5, 0.3, -0.3, 0.0]])  # numbers that f32 rounds
SPECIAL = torch.tensor([[1.0, INF, -INF, float("nan"), 0.0, -0.0, 2.5, -2.5]])
INTEGERS = torch.tensor([[3, -3, 20, -17, 0], [1, 5, -5, 9, -20]])
SIGNED = torch.tensor([[127, -128, 3, -100, 0]], dtype=torch.int8)
BYTES = torch.tensor([[255, 128, 127, 3, 0]], dtype=torch.uint8)

SQUARE = values(2, 6, 6) + 2 * torch.eye(6)
GAMMA = torch.tensor([[0.1, 0.5, 1.5, 3.0, 100.0, -0.5, -3.3, 1e-10, -1e-10]])
BAGS, WEIGHTS = torch.arange(12) % 6, values(12)

Case = tuple[Callable[..., Any], Any]
FLOATS: dict[str, Case] = {
    "softshrink": (lambda x: F.softshrink(x, 0.3), IMAGE),
    "hardshrink of the bound": (lambda x: F.hardshrink(x, 0.1), EDGES),
    "threshold of the bound": (lambda x: F.threshold(x, 0.1, 20.0), EDGES),
    "greater than a decimal fraction": (lambda x: torch.where(x > 0.1, x, 0.0), EDGES),
    "logsigmoid of large values": (F.logsigmoid, IMAGE * 100),
    "clamp with bounds in the wrong order": (lambda x: torch.clamp(x, 1.0, -1.0), IMAGE),
    "isfinite": (lambda x: torch.isfinite(x).float(), SPECIAL),
    "signbit": (lambda x: torch.signbit(x).float(), SPECIAL),
    "copysign": (lambda x: torch.copysign(torch.ones_like(x), x), SPECIAL),
    "xlogy": (lambda x: torch.xlogy(x, x.abs()), EDGES),
    "hypot": (lambda x: torch.hypot(x, x + 1), IMAGE),
    "fmod": (lambda x: torch.fmod(x, -0.7), IMAGE),
    "logsumexp of large values": (lambda x: torch.logsumexp(x, (1, -1)), IMAGE * 100),
    "logsumexp of minus infinity": (lambda x: torch.logsumexp(x, -1, keepdim=True), torch.full((2, 3), -INF)),
    "median": (lambda x: torch.median(x, -1)[0], values(2, 6)),
    "median of all": (torch.median, values(3, 5)),
    "searchsorted": (
        lambda x: torch.searchsorted(torch.arange(5.0).repeat(2, 1), x, right=True).float(),
        torch.tensor([[0.0, 1.5], [4.0, 9]]),
    ),
    "cdist": (lambda x: torch.cdist(x[0], x[1]), IMAGE),
    "cross": (lambda x: torch.linalg.cross(x, x.flip(0), dim=1), values(2, 3, 4)),
    "kron": (lambda x: torch.kron(x[0], x[1]), values(2, 3, 4)),
    "swapaxes": (lambda x: x.swapaxes(1, 3) + 1, IMAGE),
    "squeeze of several axes": (lambda x: x[:, :1, :, :1].squeeze((1, -1)), IMAGE),
    "meshgrid": (lambda x: torch.stack(torch.meshgrid(x[0], x[1], indexing="xy")), values(2, 4)),
    "matrix by vector": (lambda x: x @ x[0, 0, 0], IMAGE),
    "vector by matrix": (lambda x: x[0, 0, :, 0] @ x, IMAGE),
    "adaptive max pool, windows that differ": (lambda x: F.adaptive_max_pool2d(x, (4, 5)), IMAGE),
    "adaptive max pool, more windows than values": (lambda x: F.adaptive_max_pool2d(x, 10), IMAGE),
    "adaptive max pool, places": (lambda x: F.adaptive_max_pool2d(x, (4, 5), return_indices=True)[1].float(), IMAGE),
    "adaptive max pool of a line": (lambda x: F.adaptive_max_pool1d(x, 4), LINE),
    "fold": (lambda x: F.fold(x, (8, 8), (3, 2), stride=(2, 1), padding=1), values(1, 2 * 6, 4 * 9)),
    "fold with a rest": (lambda x: F.fold(x, (8, 8), 2, dilation=2, stride=2), values(1, 12, 9)),
    "pad circular": (lambda x: F.pad(x, (2, 1, 0, 3), mode="circular"), IMAGE),
    "pad circular and crop": (lambda x: F.pad(x, (-1, 2, 1, -2), mode="circular"), IMAGE),
    "pad reflected and crop": (lambda x: F.pad(x, (-1, 2, 0, 1), mode="reflect"), IMAGE),
    "pad replicated and crop": (lambda x: F.pad(x, (-1, 2, 0, 1), mode="replicate"), IMAGE),
    "pad and crop": (lambda x: F.pad(x, (-1, 2, 1, -2), value=3.0), IMAGE),
    "crop": (lambda x: F.pad(x, (-1, -2)), IMAGE),
    "inverse": (torch.linalg.inv, SQUARE),
    "inverse with zeros on the diagonal": (torch.linalg.inv, torch.eye(5).roll(2, 0) * 3),
    "solve": (lambda a: torch.linalg.solve(a, a[0, :, :2]), SQUARE),
    "solve for one column": (lambda a: torch.linalg.solve(a, a[..., 0] + 1), SQUARE),
    "solve from the right": (lambda a: torch.linalg.solve(a, a[:, :2], left=False), SQUARE),
    "determinant with zeros on the diagonal": (torch.linalg.det, torch.eye(4).roll(1, 0) * WEIGHTS[:4]),
    "cholesky": (lambda a: torch.linalg.cholesky(a @ a.mT), SQUARE),
    "cholesky, upper": (lambda a: torch.linalg.cholesky(a @ a.mT, upper=True), SQUARE),
    "solve triangular": (lambda a: torch.linalg.solve_triangular(a.triu() + torch.eye(6), a, upper=True), SQUARE),
    "solve triangular from the right": (
        lambda a: torch.linalg.solve_triangular(a.tril(), a, upper=False, left=False, unitriangular=True),
        SQUARE / 3,
    ),
    "erfc": (torch.erfc, IMAGE),
    "lgamma": (torch.lgamma, GAMMA),
    "digamma": (torch.digamma, GAMMA),
    "cummax": (lambda x: torch.stack([v.float() for v in x.cummax(1)]), SPECIAL),
    "cummin": (lambda x: torch.stack([v.float() for v in x.round().cummin(-1)]), IMAGE),
    "histogram": (lambda x: torch.histc(x, 5, -1, 1), SPECIAL),
    "histogram of its own range": (lambda x: torch.histc(x, 7), IMAGE),
    "histogram of one number": (lambda x: torch.histc(x, 4), torch.ones(5)),
    "bags of embeddings": (lambda x: F.embedding_bag(BAGS.view(3, 4), x), values(6, 4)),
    "bags of embeddings that differ": (lambda x: F.embedding_bag(BAGS, x, torch.tensor([0, 5, 5]), mode="max"), values(6, 4)),
    "weighted bags of embeddings": (
        lambda x: F.embedding_bag(
            BAGS, x, torch.tensor([0, 5, 12]), mode="sum", per_sample_weights=WEIGHTS, include_last_offset=True, padding_idx=3
        ),
        values(6, 4),
    ),
    "nearest exact": (lambda x: F.interpolate(x, size=(4, 15), mode="nearest-exact"), IMAGE),
    "nearest exact by scale": (lambda x: F.interpolate(x, scale_factor=1.7, mode="nearest-exact"), LINE),
    "antialiased": (lambda x: F.interpolate(x, size=(4, 15), mode="bilinear", antialias=True), IMAGE),
    "antialiased cubic by scale": (lambda x: F.interpolate(x, scale_factor=(0.4, 1.7), mode="bicubic", antialias=True), IMAGE),
    "antialiased, corners aligned": (lambda x: F.interpolate(x, size=(4, 15), mode="bicubic", antialias=True, align_corners=True), IMAGE),
    **{
        f"grid sample, {mode}, {padding}, {aligned}": (
            lambda x, mode=mode, padding=padding, aligned=aligned: F.grid_sample(
                x, 2 * x[:, :2].movedim(1, -1), mode=mode, padding_mode=padding, align_corners=aligned
            ),
            IMAGE,
        )
        for mode, padding, aligned in [
            ("bilinear", "zeros", False),
            ("bilinear", "border", True),
            ("nearest", "reflection", False),
            ("bicubic", "zeros", True),
        ]
    },
    "magnitude of a spectrum": (lambda x: torch.fft.rfft(x).abs(), values(2, 8)),
    "product of complex numbers": (lambda x: torch.view_as_real(torch.view_as_complex(x) * (1 + 2j)), values(3, 2)),
    "rotation by complex constants": (
        lambda x: torch.view_as_real(torch.view_as_complex(x) * torch.polar(torch.ones(3), torch.arange(3.0))),
        values(3, 2),
    ),
}


@pytest.mark.parametrize("name", slow_except(FLOATS, "isfinite"))
def test_floats_agree(name: str) -> None:
    function, x = FLOATS[name]
    with np.errstate(all="ignore"):
        found = interpreter.run(graph_form(Function(function), x).module, [x.numpy()])[0]
    expected = function(x.clone()).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: x**3, INTEGERS),
        (lambda x: torch.fmod(x, 7), INTEGERS),
        (lambda x: x ** torch.tensor([2, 1, 0, 5, -1]), INTEGERS),
        (lambda x: x[0] ** x[1], INTEGERS),
        (lambda x: x ** x.abs(), SIGNED),
        (lambda x: ((x & 3) | 4) ^ 1, INTEGERS),
        (lambda x: (x > 0) & (x < 9) | ~(x == -3), INTEGERS),
        (lambda x: x * 2, SIGNED),
        (lambda x: 3 - x, SIGNED),
        (lambda x: x * 3 + 1, BYTES),
        (lambda x: 255 - x, BYTES),
        (lambda x: x > 130, BYTES),
        (lambda x: x // 3, BYTES),
        (lambda x: (x >> 4) | (x << 4), BYTES),
        (lambda x: x.sum(1), BYTES),
        (lambda x: x.float() / 255, BYTES),
        (lambda x: x * torch.tensor(0.5), BYTES),
        (lambda x: (x.abs() * 300).to(torch.uint8), EDGES),
    ],
)
def test_integers_agree_and_keep_their_types(function: Any, x: Any) -> None:
    found = qcc.compile(Function(function).eval(), example_inputs=(x,), threads=1)(x)
    expected = function(x.clone())
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.slow
def test_constants_used_twice_at_every_step_are_folded_once() -> None:
    def doubled(x: Any) -> Any:
        c = torch.ones_like(x)
        for _ in range(40):
            c = c * 0.25 + c * 0.75
        return x + c

    x = torch.ones(2, 3)
    graph = graph_form(Function(doubled), x)
    np.testing.assert_array_equal(interpreter.run(graph.module, [x.numpy()])[0], doubled(x).numpy())


def test_masks_made_from_the_shape_of_an_input_are_constants() -> None:
    def masked(x: Any) -> Any:
        regions = x.new_zeros(1, 8)
        regions[:, :3] = 1
        different = regions.unsqueeze(1) - regions.unsqueeze(2)
        return x + different.masked_fill(different != 0, -100.0) + torch.full_like(x, 2) + torch.ones_like(x)

    x = values(2, 8, 8)
    graph = graph_form(Function(masked), x)
    assert ops(graph)["func.call"] == 0
    np.testing.assert_allclose(interpreter.run(graph.module, [x.numpy()])[0], masked(x).numpy(), rtol=1e-6)


def test_position_grids_are_constants() -> None:
    def placed(x: Any) -> Any:
        rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
        return x + rows * columns

    assert ops(graph_form(Function(placed), IMAGE))["func.call"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [nn.InstanceNorm2d(4, track_running_stats=True), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3))],
    ids=["instance norm by running statistics", "weight norm"],
)
def test_layers_agree(layer: nn.Module) -> None:
    found = interpreter.run(graph_form(layer, IMAGE).module, [IMAGE.numpy()])[0]
    np.testing.assert_allclose(found, layer(IMAGE).detach().numpy(), rtol=2e-5, atol=2e-5)


def test_batch_norm_beside_an_unknown_operator_stays_whole() -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), Function(lambda x: x.swapaxes(1, 2)))
    assert ops(graph_form(model, IMAGE))["qcc.batch_norm"] == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, :0] + 1, "at least one element"),
        (lambda x: torch.view_as_real(torch.view_as_complex(x) + 1j), "complex"),
        (torch.nonzero, r"'nonzero'.*shape \[u0, 2\], which depends on the data"),
        (lambda x: x.repeat_interleave((x[:, 0] > 0).int(), 0), "depends on the data"),
    ],
)
def test_what_cannot_be_compiled_is_named(function: Any, message: str) -> None:
    with pytest.raises(QccError, match=message):
        qcc.compile(Function(function).eval(), example_inputs=(values(3, 2),))
