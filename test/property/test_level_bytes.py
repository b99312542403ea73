"""Levels as bytes: what they stand for, and that sums without the products of low bytes stay as exact as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.passes.tile.codelets.level_bytes import level_bytes
from test.tiers import draws


@draws(40, derandomize=True)
@given(seed=st.integers(0, 1 << 30), count=st.sampled_from([2, 4, 16]), side=st.sampled_from([-1.0, 0.0, 1.0]))
def test_two_bytes(seed: int, count: int, side: float) -> None:
    rng = np.random.default_rng(seed)
    levels = (rng.normal(size=count) + 2 * side) * np.exp(rng.uniform(-20, 20))
    levels[0] = 0
    found = level_bytes(levels, np.full(count, 1 / count))
    assert found is not None
    if len(found.bytes_of) == 2:
        words = found.bytes_of[0].astype(int) * 256 + found.bytes_of[1]
        assert found.zero % 256 == 128 and words[0] == found.zero
    else:
        words = found.bytes_of[0].astype(int)
    spread = max(levels.max(), 0) - min(levels.min(), 0)
    assert np.abs(found.unit * (words - found.zero) - levels).max() <= 2.0**-16.9 * spread


@pytest.mark.parametrize("least", [-1.0, 0.0, 2.0])
def test_multiples_of_a_unit_take_one_exact_byte(least: float) -> None:
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, least])
    found = level_bytes(levels, np.full(9, 1 / 9))
    assert found is not None and len(found.bytes_of) == 1
    assert (found.unit * (found.bytes_of[0].astype(int) - found.zero) == levels).all()


@pytest.mark.parametrize("bad", [[np.inf, 1.0], [0.0, 0.0], [np.nan, 1.0]])
def test_no_bytes(bad: list[float]) -> None:
    assert level_bytes(np.array(bad), np.full(2, 0.5)) is None


@pytest.mark.parametrize("leaning", [False, True])
def test_sums_without_products_of_low_bytes(leaning: bool) -> None:
    """The error of sums of 4096 products is that of x in 15 bits or so, also where all of x has one sign."""
    rng = np.random.default_rng(5)
    levels = np.sort(rng.normal(size=16))
    codes = rng.integers(0, 16, (64, 4096))
    x = rng.normal(size=4096)
    x = np.maximum(x, 0) if leaning else x
    found = level_bytes(levels, np.bincount(codes.reshape(-1), minlength=16) / codes.size)
    assert found is not None
    q = np.rint(x * 32639 / np.abs(x).max()).astype(np.int64)
    low = (q + 128) % 256 - 128
    words = found.bytes_of[0].astype(np.int64) * 256 + found.bytes_of[1]
    products = (words - found.zero)[codes] * q - (found.bytes_of[1].astype(np.int64) - 128)[codes] * low
    got, want = products.sum(axis=1) * found.unit * np.abs(x).max() / 32639, levels[codes] @ x
    assert np.sqrt(((got - want) ** 2).mean()) < 1e-4 * np.sqrt((x**2).sum() * (levels**2).mean())
