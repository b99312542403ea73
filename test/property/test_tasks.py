"""Work is cut into tasks that two threads share evenly."""

from __future__ import annotations

import pytest

from qcc.passes.tile.codelets.tasks import even_chunk


@pytest.mark.parametrize(
    ("count", "wanted", "other", "chunk"),
    [(12, 3, 1, 3), (56, 19, 1, 2), (128, 3, 1, 32), (12, 3, 2, 4), (10, 1, 1, 10), (127, 3, 1, 32), (7, 7, 1, 1)],
)
def test_chunks(count: int, wanted: int, other: int, chunk: int) -> None:
    """Three tasks become four of equal size, nineteen 28; where others make the number even, or one is wanted, nothing changes."""
    assert even_chunk(count, wanted, other) == chunk
