"""Convolutions, and linear layers of many rows, of bytes whose weights have blocks of four input channels that are zero: the others are
computed, where that is predicted faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qcc.dialects import codelet_cost
from qcc.dialects.codelet import Contraction, Operand, SparsePixels, Step
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.mlir import layer_name
from qcc.dialects.pixel_units import PixelUnits, quadruples
from qcc.passes.tile.codelets import packing, winograd
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.reading import Reading
from qcc.passes.tile.codelets.register_tile import TASK_MACS, choose_tile
from qcc.passes.tile.codelets.sparse_packing import expected_pixel_bytes
from qcc.passes.tile.codelets.tasks import even_chunk

MOST_VECTORS = 7  # of pixels of a tile
BLOCK_BYTES = 28 * 1024  # of x that stay in the first-level cache while weights pass by
LEAST_CHANNELS = 256  # of a task that shares its pixels with others: each of them turns x around
MOST_TASKS = 32
GAIN = 0.95  # worth it below this part of the dense time: less is within the error of the prediction
LEAST_CLUSTERED = 0.65  # of the blocks that are left where channels are put into another order
LEAST_ZEROS = 0.05  # about which something is said


def configuration(isa: str, sizes: tuple[int, int, int, int], taps: tuple[int, int], run: int, density: float) -> SparsePixels:
    """The codelet for results [n, h, w, c] of `taps` runs of x, where that part of the quadruples is kept; operands left open."""
    facts = ISAS[isa]
    n, height, width, channels = sizes
    vectors = math.ceil(n * height * width / facts.lanes)
    vectors = math.ceil(vectors / math.ceil(vectors / MOST_VECTORS))
    squares = math.prod(taps) * math.ceil(run / (4 * facts.lanes))
    most = max(1, BLOCK_BYTES // (4 * vectors * facts.lanes * facts.lanes))
    nowhere = Operand(0, "u8", (0, 0, 0, 0))
    found = SparsePixels(
        isa=isa,
        sizes=sizes,
        x=nowhere,
        w=Operand(1, "u8", (1,)),
        taps=taps,
        tap_strides=(0, 0),
        run=run,
        vectors=vectors,
        squares=math.ceil(squares / math.ceil(squares / most)),
        chunk=channels,
        strip=1,
        operands=(),
        steps=(),
        y=nowhere,
        bias=Operand(2, "i32", (0, 0, 0, 1)),
    )
    wanted = max(1, min(MOST_TASKS, int(math.prod(sizes) * math.prod(taps) * run * density) // TASK_MACS))
    strip = even_chunk(found.tiles, min(found.tiles, wanted))
    unit = 4 * facts.lanes  # channels whose results are stored together
    parts = min(math.ceil(wanted / math.ceil(found.tiles / strip)), max(1, channels // LEAST_CHANNELS))
    return replace(found, strip=strip, chunk=min(channels, math.ceil(channels / parts / unit) * unit))


def rows_microseconds(lowering: Lowering, rows: int, kept: np.ndarray) -> float:
    """Predicted time of a linear layer of `rows` rows of bytes whose weights [out, k] stay where `kept`, steps and the order of channels
    left aside; infinite where it is not computed so, 0 where that is asked for."""
    out, k = kept.shape
    if not _able(lowering, rows, out) or lowering.streamed or lowering.storage not in ("auto", "block"):
        return math.inf
    density = _kept(np.pad(kept, ((0, 0), (0, -k % 4))).reshape(out, -1, 4).max(axis=2))
    codelet = configuration(lowering.isa, (1, 1, rows, out), (1, 1), k, density)
    return 0.0 if lowering.storage == "block" else _microseconds(codelet, density)


def lower(
    lowering: Lowering,
    op: Any,
    reading: Reading,
    values: np.ndarray,
    bias: np.ndarray | None,
    sizes: tuple[int, int, int, int, int],
    program: Program,
    y: Place,
    spread: Sequence[tuple[int, ...]],
    halo_word: int = 0,
    other: winograd.Plan | None = None,
) -> bool:
    """Call the codelet where it is predicted faster than the direct loop and than `other`; False: nothing was done.

    Weights [groups, out, taps, run] whose sums fit 32 bits, bias [1, out] with the zero point of x in it; the other arguments are those of
    `products.emit`.
    """
    n, _, height, width, channels = sizes
    if not _able(lowering, n * height * width, channels) or not _suits(reading, values):
        return False
    w = values[0]
    zeros, density = 1 - _kept(w), _kept(quadruples(w))
    codelet = replace(
        configuration(lowering.isa, (n, height, width, channels), reading.taps, reading.run, density), steps=tuple(program.steps)
    )
    dense = _direct_microseconds(lowering.isa, sizes, reading, program.steps)
    if other is not None:
        dense = min(dense, other.microseconds * codelet_cost.winograd_measured(lowering.isa, other.compute))
    able, asked = not lowering.streamed, lowering.storage == "block"
    if able and ISAS[lowering.isa].byte_lanes and (asked or _microseconds(codelet, LEAST_CLUSTERED * density) < GAIN * dense):
        codelet = replace(codelet, ordered=True)
    units = PixelUnits.of(codelet, w)
    density = _kept(units.words)
    microseconds = _microseconds(codelet, density)
    chosen = able and (asked or (lowering.storage == "auto" and microseconds < GAIN * dense))
    if chosen or zeros > LEAST_ZEROS:
        _report(lowering, op, codelet, zeros, density, microseconds, dense, chosen=chosen)
    if not chosen:
        return False
    halo = None
    if any(y.halo):
        halo = y.fill(len(program.words))
        program.words.append(halo_word)
    start = np.zeros((1, channels), np.int64) if bias is None else bias
    held = start.astype(np.uint32).view(np.int32)  # sums wrap
    made = units.apply()
    places = [reading.place, lowering.stream(made, units if lowering.coded else None)]
    places.append(lowering.weights(packing.pad_channels(held, ISAS[lowering.isa].lanes), "i32"))
    strides = [tuple(s[i] if sizes[i] > 1 else 0 for i in (0, 2, 3, 4)) for s in spread]  # 0 where nothing varies
    sn, _, sh, sw, _ = reading.strides
    operands = tuple(place.operand(len(places) + i, strides[i]) for i, place in enumerate(program.operands))
    places += program.operands
    params = lowering.append_params(places, program.words)
    codelet = replace(
        codelet,
        x=Operand(0, "u8", (sn, sh, sw, 1), reading.place.offset + reading.offset),
        tap_strides=reading.tap_strides,
        operands=operands,
        y=y.operand(len(places), strides[-1]),
        params=params,
        halo=halo,
    )
    lowering.call(codelet, [*places, y], scratch_bytes=codelet.scratch_bytes)
    lowering.fact(
        layer_name(op.location),
        stored_format=f"the {density:.0%} of blocks of four input channels that are not 0"
        + (", made of all weights when loaded" if lowering.coded else ""),
        stored_bytes=int(made.nbytes),
    )
    return True


def _report(
    lowering: Lowering, op: Any, codelet: SparsePixels, zeros: float, density: float, microseconds: float, dense: float, *, chosen: bool
) -> None:
    """Say what was chosen, and from which share of zeros in no order on the codelet pays."""
    even = break_even(codelet, dense)
    pays = "never pays for this shape" if even is None else f"pays from {even:.0%} zeros in no order"
    words = f"{zeros:.0%} zeros: the {density:.0%} of blocks of four input channels {dense / microseconds:.2f}x as fast as dense ({pays})"
    if not chosen:
        fastest = lowering.storage == "auto" and microseconds >= GAIN * dense
        why = "kept dense, which is fastest" if fastest else f"{lowering.storage} asked for"
        if lowering.streamed and not fastest and lowering.storage != "dense":
            why = "kept dense, because weights decoded while running keep their zeros"
        words += f"; {why}"
    lowering.fact(
        layer_name(op.location),
        storage="block 1x4" if chosen else "dense",
        storage_reason=words,
        storage_times_us={"dense": round(dense, 2), "block": round(microseconds, 2)},
        storage_break_even={"block": even},
    )


def break_even(codelet: SparsePixels, dense: float) -> float | None:
    """The least share of zeros in no order, in whole per cent, from which on `codelet` takes less than `dense` us; None: never."""
    percent = 100
    while percent and _microseconds(codelet, 1 - ((percent - 1) / 100) ** 4) < dense:
        percent -= 1
    return percent / 100 if percent < 100 else None


def _kept(w: np.ndarray) -> float:
    return np.count_nonzero(w) / max(1, w.size)


def _able(lowering: Lowering, pixels: int, channels: int) -> bool:
    """Whether the instruction set has the codelet, pixels fill a vector at least by half, and channels words."""
    facts = ISAS[lowering.isa]
    return facts.dot4 and not facts.tiles and 2 * pixels >= facts.lanes and channels % 4 == 0


def _suits(reading: Reading, values: np.ndarray) -> bool:
    """Whether weights [groups, out, taps, run] and x are what the codelet takes."""
    x = reading.place
    if x.element != "u8" or len(values) > 1:
        return False
    followed = x.buffer.owner.attributes["space"].value not in ("weights", "input")  # by bytes that may be read
    return followed and values.dtype.kind != "f" and packing.narrowest(values) == "s8"


def _direct_microseconds(isa: str, sizes: tuple[int, int, int, int, int], reading: Reading, steps: Sequence[Step]) -> float:
    """Predicted time of the contraction of bytes that computes the same, zeros included."""
    _, _, height, width, channels = sizes
    reduction = math.prod(reading.taps) * math.ceil(reading.run / 4)
    tile = choose_tile(isa, "dot4_u8s8", "s8", height, width, channels, reduction, one_row=False, summed=False)
    x, nowhere = Operand(0, "u8", reading.strides), Operand(0, "u8", (0, 0, 0, 0, 0))
    w = Operand(1, "s8", (0, 0, 0, 0, 0))
    codelet = Contraction(
        isa, "dot4_u8s8", sizes, x, w, reading.taps, reading.tap_strides, reading.run, tile, (1, 1), (), tuple(steps), nowhere
    )
    cost = codelet_cost.cost(codelet, shipped(isa))
    assert cost is not None
    return cost.microseconds


def _microseconds(codelet: SparsePixels, density: float) -> float:
    cost = codelet_cost.cost(codelet, shipped(codelet.isa), stored_bytes=expected_pixel_bytes(codelet, density))
    assert cost is not None
    return cost.microseconds
