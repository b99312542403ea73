"""Placement of buffers: those that live at the same time never overlap, and the arena is not larger than all of them together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qcc.passes.tile._placement import Life, peak_bytes, place, round_up
from test.tiers import draws

LIVES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10)), max_size=40)


@draws(300)
@given(found=LIVES)
def test_lives_that_meet_do_not_overlap(found: list[tuple[int, int, int]]) -> None:
    lives = [Life(None, round_up(size), first, first + length) for size, first, length in found]
    total = place(lives)
    assert peak_bytes(lives) <= total <= sum(life.size_bytes for life in lives)
    for i, a in enumerate(lives):
        assert a.offset_bytes % 64 == 0 and a.offset_bytes + a.size_bytes <= total
        for b in lives[:i]:
            if a.first <= b.last and b.first <= a.last and a.size_bytes and b.size_bytes:
                assert a.offset_bytes + a.size_bytes <= b.offset_bytes or b.offset_bytes + b.size_bytes <= a.offset_bytes


@draws(100)
@given(found=LIVES)
def test_the_same_lives_give_the_same_places(found: list[tuple[int, int, int]]) -> None:
    made: list[list[int]] = []
    for _ in range(2):
        lives = [Life(None, round_up(size), first, first + length) for size, first, length in found]
        place(lives)
        made.append([life.offset_bytes for life in lives])
    assert made[0] == made[1]


@draws(100)
@given(sizes=st.lists(st.integers(1, 10000), min_size=1, max_size=30))
def test_a_chain_needs_two_neighbours_at_most(sizes: list[int]) -> None:
    """A network without branches: every value lives from its producer to the next call."""
    lives = [Life(None, round_up(size), i, i + 1) for i, size in enumerate(sizes)]
    assert place(lives) <= 2 * peak_bytes(lives)
