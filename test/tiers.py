"""What the quick tier, `pytest -m "not slow"`, keeps of long lists of cases and of random ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

FEW = 3  # examples of a property in the quick tier
in_quick_tier = False  # conftest.py says so before any test file is imported


def slow_except(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """`cases` as values of `pytest.mark.parametrize`, all but those of `quick` marked slow; a tuple is one value per argument."""
    return [pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=[] if c in quick else pytest.mark.slow) for c in cases]


def draws(examples: int, parent: settings | None = None, **options: Any) -> settings:
    """Settings of a property test: how many examples are drawn, a few in the quick tier; with no deadline, because machines are noisy."""
    return settings(parent, max_examples=min(examples, FEW) if in_quick_tier else examples, deadline=None, **options)
