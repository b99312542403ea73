"""Division by a constant scale as multiplications, against division."""

from __future__ import annotations

import numpy as np
import pytest

from qcc.passes.tile.codelets.reciprocal import limits, rounds_as_division
from qcc.runtime.reference.float_ops import fma


@pytest.mark.parametrize("seed", range(5))
def test_quotients_round_as_a_division(seed: int) -> None:
    """What the verdict promises holds for random values, among them the middles between whole quotients."""
    rng = np.random.default_rng(seed)
    scale = np.float32(10 ** rng.uniform(-5, 3))
    assert rounds_as_division(float(scale), -128, 127)
    least, most = limits(float(scale), -128, 127)
    middles = (rng.integers(-130, 130, 4000) + 0.5).astype(np.float32) * scale
    x = np.concatenate([rng.uniform(least, most, 20000).astype(np.float32), middles, np.nextafter(middles, np.float32(0))])
    x = np.clip(x, least, most)
    near = x * (np.float32(1) / scale)
    quotient = fma(fma(-near, scale, x), np.float32(1) / scale, near)
    np.testing.assert_array_equal(np.clip(np.rint(quotient), -128, 127), np.clip(np.rint(x / scale), -128, 127))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30, float("inf")])
def test_extreme_scales_divide(scale: float) -> None:
    assert not rounds_as_division(scale, 0, 255)


def test_most_scales_qualify() -> None:
    scales = np.random.default_rng(9).uniform(1e-4, 1.0, 200).astype(np.float32)
    assert sum(rounds_as_division(float(s), 0, 255) for s in scales) > 180
