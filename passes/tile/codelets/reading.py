"""How a product reads x: contiguous runs, a few taps of them, from one pixel to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.mlir import op_attribute
from qcc.passes.tile.codelets.place import Place
from qcc.passes.values import shape_of


@dataclass
class Reading:
    """How x is read: its place, strides over (n, g, h, w, c), taps and the length of a run."""

    place: Place
    strides: tuple[int, int, int, int, int]
    taps: tuple[int, int]
    tap_strides: tuple[int, int]
    run: int
    offset: int = 0  # added to the place's own


def reading_of(op: Any, place: Place) -> Reading:
    """How conv2d `op` reads x, channels-last with its border at `place`: kernel columns and channels are one run where they touch."""
    strides, padding, dilations = (op_attribute(op, name) for name in ("strides", "padding", "dilations"))
    _, per_group, kh, kw = shape_of(op.operands[1])
    sn, sc, sh, sw = place.strides
    merged = op_attribute(op, "groups") == 1 and dilations[1] == 1 and sw == per_group and sc == 1
    return Reading(
        place,
        (sn, per_group * sc, sh * strides[0], sw * strides[1], 0),
        (kh, 1) if merged else (kh, kw),
        (sh * dilations[0], 0 if merged else sw * dilations[1]),
        kw * per_group if merged else per_group,
        -padding[0] * sh - padding[1] * sw,
    )


def over_groups(places: Sequence[Place], per: int) -> list[tuple[int, ...]]:
    """Strides of [n, c, h, w] places over (n, g, h, w, c) with `per` channels in a group."""
    return [(p.strides[0], p.strides[1] * per, p.strides[2], p.strides[3], p.strides[1]) for p in places]
