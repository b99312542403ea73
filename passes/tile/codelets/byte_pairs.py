"""Packing u8 x s8 products for instructions that sum two of them in 16 bits and saturate (vpmaddubsw), such that nothing ever saturates.

The weights are known, and so is the greatest byte of x. A step of the reduction is four bytes of x, broadcast, times four weights for each
lane: two 16-bit sums of two products. A step with a sum that may leave 16 bits is divided into parts, weights that add up to its own, each
of which fits; parts are steps of their own. Then steps are put together in items of four, two or one whose 16-bit sums may be added before
they are widened to 32 bits: nine instructions for four steps, five for two, three for one. Steps so reordered are read through a table of
offsets; those whose weights are all zero are left out.

Which steps go together is a packing of vectors into bins (one dimension per 16-bit sum and sign), solved greedily within windows of
`WINDOW` steps, the heaviest first, each with the heaviest partner that fits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

WINDOW = 32
BATCH = 2048  # windows packed at once: bounds the memory of the packer
FULL = 0.75  # of the 16-bit range: items of two that reach this far are not put together further
INSTRUCTIONS = {4: 9, 2: 5, 1: 3}  # of an item of so many steps


@dataclass(frozen=True)
class Listed:
    """Packed weights of [groups][blocks] of `lanes` channels, and how to walk them.

    `weights` s8 [class][group][block][item][step][lane][4], flat; `offsets` i32 [class][group][block][item][step], flat: how far the
    step's bytes of x are from the first byte of the reduction; `index` i32 [groups * blocks, classes, 3]: number of items, byte where their
    weights begin, byte where their offsets begin. `instructions` is their average number per plain step.
    """

    weights: Array
    offsets: Array
    index: Array
    classes: tuple[int, ...]
    instructions: float


def pack(w: Array, distances: Array, *, lanes: int, greatest: int) -> Listed:
    """Integers w [groups, c, taps, run] times x in 0..`greatest`; the run of tap t begins `distances[t]` bytes behind the first one's."""
    groups, channels, taps, run = w.shape
    quads = -(-run // 4)
    padded = np.zeros((groups, -(-channels // lanes) * lanes, taps, quads * 4), np.int16)
    padded[:, :channels, :, :run] = w
    steps = padded.reshape(-1, lanes, taps * quads, 4).transpose(0, 2, 1, 3)  # [blocks, steps, lanes, 4]
    blocks, count = steps.shape[:2]
    offsets = (np.asarray(distances)[:, None] + 4 * np.arange(quads)).reshape(-1).astype(np.int32)
    cap = 32767 // max(greatest, 1)
    numbers, parts = _parts(np.ascontiguousarray(steps).reshape(-1, lanes, 4), cap)
    items = _items(numbers // count * -(-count // WINDOW) + numbers % count // WINDOW, _loads(parts, cap), cap)
    classes = tuple(size for size in INSTRUCTIONS if len(items[size]))
    index, weights, where = np.zeros((blocks, len(classes), 3), np.int32), [np.zeros(0, np.int8)], [np.zeros(0, np.int32)]
    first = 0
    for k, size in enumerate(classes):
        members = items[size]  # [items, size], windows and so blocks in order
        held = np.bincount(numbers[members[:, 0]] // count, minlength=blocks)
        starts = first + size * np.concatenate([[0], np.cumsum(held)[:-1]])
        index[:, k] = np.stack([held, starts * lanes * 4, starts * 4], axis=1)
        weights.append(parts[members].astype(np.int8).reshape(-1))
        where.append(offsets[numbers[members] % count].reshape(-1))
        first += members.size
    total = sum(INSTRUCTIONS[size] * len(items[size]) for size in classes)
    return Listed(np.concatenate(weights), np.concatenate(where), index, classes, total / max(blocks * count, 1))


def _sums(w: Array) -> tuple[Array, Array]:
    """Of every pair of weights [..., 4] the sums of the positive and of the negated negative ones, [..., 2]."""
    pairs = w.reshape(*w.shape[:-1], 2, 2)
    return np.maximum(pairs, 0).sum(-1), np.maximum(-pairs, 0).sum(-1)


def _parts(steps: Array, cap: int) -> tuple[Array, Array]:
    """Steps [n, lanes, 4] cut into as few parts as fit: the number of its step for each, and the parts that are not all zero."""
    numbers, parts = [], []
    left, pieces = np.flatnonzero(steps.any(axis=(1, 2))), 1
    while left.size:
        ends = [steps[left] * i / pieces for i in range(pieces + 1)]
        cut = [np.trunc(b).astype(np.int16) - np.trunc(a).astype(np.int16) for a, b in itertools.pairwise(ends)]
        fits = np.logical_and.reduce([((np.maximum(*_sums(p)) <= cap).all(2) & (np.abs(p) <= 127).all(2)).all(1) for p in cut])
        for part in cut:
            numbers.append(left[fits])
            parts.append(part[fits])
        left, pieces = left[~fits], pieces + 1
    if not parts:
        return np.zeros(0, np.int64), steps[:0]
    numbers_of, all_parts = np.concatenate(numbers), np.concatenate(parts)
    order = np.argsort(numbers_of, kind="stable")
    return numbers_of[order], all_parts[order]


def _loads(parts: Array, cap: int) -> Array:
    """[parts, dimensions]: what each takes of `cap`, per 16-bit sum and sign."""
    both = np.concatenate([s.reshape(len(parts), -1) for s in _sums(parts)], axis=1)
    return np.minimum(both, cap).astype(np.uint8 if cap < 256 else np.uint16)


def _items(window: Array, loads: Array, cap: int) -> dict[int, Array]:
    """Members [items, size] of the items of each size, numbers of parts; parts of a window are neighbours."""
    sizes = np.unique(window, return_counts=True)[1]
    ends = np.cumsum(sizes)
    found: dict[int, list[Array]] = {size: [] for size in INSTRUCTIONS}
    for low in range(0, len(sizes), BATCH):
        counts, begins = sizes[low : low + BATCH], (ends - sizes)[low : low + BATCH]
        slots = np.arange(counts.max())
        valid = slots < counts[:, None]
        members = np.where(valid, begins[:, None] + slots, 0)[..., None]  # [windows, slots, 1]
        size = 1
        while size < 4:
            load = _total(loads, members)
            if size > 1 and valid.any() and np.median(load.max(axis=2)[valid]) > FULL * cap:
                break
            first, second = _matched(load, valid, cap)
            alone = valid.copy()
            alone[first[0], first[1]] = alone[second[0], second[1]] = False
            found[size].append(members[alone])
            members, valid = _together(members, first, second)
            size *= 2
        found[size].append(members[valid])  # of size 4, or 2 where most are full
    return {size: np.concatenate(each) if each else np.zeros((0, size), np.int64) for size, each in found.items()}


def _total(loads: Array, members: Array) -> Array:
    """Loads [windows, slots, dimensions] of slots with several members each."""
    total = loads[members[..., 0]]
    for k in range(1, members.shape[-1]):
        total = total + loads[members[..., k]]
    return total


def _matched(load: Array, valid: Array, cap: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Pairs of slots whose loads fit together, as (windows, slots) of the first and of the second, in the order of windows."""
    windows, slots, dimensions = load.shape
    order = np.argsort(np.where(valid, -load.sum(axis=2, dtype=np.int64), 1), axis=1, kind="stable")
    load, free = np.take_along_axis(load, order[..., None], axis=1), np.take_along_axis(valid, order, axis=1)
    fits = free[:, :, None] & free[:, None, :]
    room = np.array(cap, load.dtype) - load
    for d in range(dimensions):
        fits &= load[:, :, None, d] <= room[:, None, :, d]
    partner = np.full((windows, slots), -1)
    every = np.arange(windows)
    for i in range(slots - 1):
        possible = fits[:, i, i + 1 :] & free[:, i + 1 :] & free[:, i, None]
        chosen = possible.argmax(axis=1)
        here = every[possible[every, chosen]]
        partner[here, i] = order[here, i + 1 + chosen[here]]
        free[here, i] = free[here, i + 1 + chosen[here]] = False
    where = np.nonzero(partner >= 0)
    return (where[0], order[where]), (where[0], partner[where])


def _together(members: Array, first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """The matched slots as slots with twice as many members, and which of them are real."""
    windows = len(members)
    count = np.bincount(first[0], minlength=windows)
    slots = np.arange(max(count.max(initial=0), 1))
    valid = slots < count[:, None]
    made = np.zeros((*valid.shape, 2 * members.shape[-1]), members.dtype)
    made[valid] = np.concatenate([members[first], members[second]], axis=-1)
    return made, valid
