"""What the quick tier, `pytest -m "not slow"`, keeps of long lists of cases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """`cases` as values of `pytest.mark.parametrize`, all but those of `quick` marked slow; a tuple is one value per argument."""
    return [pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=[] if c in quick else pytest.mark.slow) for c in cases]
