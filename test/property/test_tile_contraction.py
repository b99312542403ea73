"""Products on AMX tiles against the reference, in software where the machine has no AMX: every way of cutting a layer into tiles."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.passes.llvm.codelets.isa import isa
from qcc.passes.tile.codelets import tile_products
from test.emulation import amx
from test.property.test_codelets import _convolution
from test.property.tiled_executor import check
from test.tiers import draws

CASE = {
    "seed": 1, "n": 1, "groups": 1, "c": 16, "o": 16, "depthwise": False, "kernel": (3, 3), "strides": (1, 1), "dilations": (1, 1),
    "padding": (1, 1, 1, 1), "size": (7, 7), "x_bits": 8, "x_signed": True, "w_bits": 7, "w_signed": True, "y_signed": True,
    "residual": False, "bias": True,
}  # fmt: skip


def _any_shape(number: int) -> Any:
    """`tile_products.choose` that takes candidate `number` (modulo how many there are), whatever it costs."""

    def choose(sizes: Any, strides: Any, taps: int, run: int, element: str, *, one_row: bool = False) -> tile_products.Shape:
        steps, depth = tile_products.cut(run, element) or (0, 0)
        found = [s for _, s in tile_products.candidates(sizes, strides, taps * steps, depth, steps, one_row)]
        return found[number % len(found)]

    return mock.patch.object(tile_products, "choose", choose)


def _check_on_tiles(case: dict[str, Any], number: int) -> None:
    with _any_shape(number):
        tiled = check(*_convolution(case), "amx")
    assert 'kind = "tile_contraction"' in tiled.text


@pytest.mark.slow
@draws(40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    groups=st.sampled_from([1, 1, 2]),
    c=st.integers(1, 40),
    o=st.sampled_from([3, 16, 17, 33, 70]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    size=st.tuples(st.integers(5, 9), st.integers(5, 40)),
    flags=st.tuples(*[st.booleans()] * 5),
    w_bits=st.sampled_from([8, 7, 3]),
    number=st.integers(0, 15),
    seed=st.integers(0, 1 << 30),
)
def test_every_cut_of_a_convolution(groups: int, c: int, o: int, flags: Any, number: int, **case: Any) -> None:
    x_signed, w_signed, y_signed, residual, bias = flags
    signs = {"x_signed": x_signed, "w_signed": w_signed, "y_signed": y_signed, "residual": residual, "bias": bias}
    _check_on_tiles(CASE | signs | case | {"groups": groups, "c": groups * c, "o": groups * o, "n": 1 + case["seed"] % 2}, number)


@pytest.mark.parametrize(
    "case",
    [
        {"c": 64, "o": 64, "size": (14, 14)},
        {"c": 3, "o": 32, "kernel": (7, 7), "strides": (2, 2), "padding": (3, 3, 3, 3), "size": (12, 40)},
        {"c": 130, "o": 48, "kernel": (1, 1), "padding": (0, 0, 0, 0), "size": (7, 7), "residual": True},
        {"c": 200, "o": 20, "size": (3, 3)},
    ],
    ids=["3x3", "stem", "1x1", "long reduction"],
)
def test_tiles_are_chosen_where_they_pay(case: dict[str, Any]) -> None:
    before = amx.count("tdpbusd")
    tiled = check(*_convolution(CASE | case), "amx")
    assert 'kind = "tile_contraction"' in tiled.text
    assert amx.machine_has_amx() or amx.count("tdpbusd") > before


def test_everything_else_is_as_on_vectors() -> None:
    assert set(isa("amx").__all__) == set(isa("avx512_vbmi").__all__)


def test_vectors_are_chosen_where_the_reduction_is_short() -> None:
    case = CASE | {"c": 4, "o": 16, "kernel": (1, 1), "padding": (0, 0, 0, 0)}
    assert "tile_contraction" not in check(*_convolution(case), "amx").text
