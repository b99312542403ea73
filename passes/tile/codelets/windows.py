"""Pooling and depthwise convolution: vectors over the channels of channels-last images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects.codelet import Operand
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import error_at, op_attribute
from qcc.dialects.window_codelet import (
    PAIRED_CHANNELS,
    Depthwise,
    DepthwiseQuads,
    Window,
    channel_blocks,
    interleaved_channel,
    quads_of,
    tap_pairs,
)
from qcc.passes.tile.codelets import elementwise, packing
from qcc.passes.tile.codelets.level_codes import LevelCodes
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.register_tile import MOST_TASKS
from qcc.passes.tile.codelets.tasks import even_chunk
from qcc.passes.values import affine_of, shape_of

LANES = 16  # of DepthwiseQuads
TASK_TAPS = 250_000


def pool(lowering: Lowering, op: Any) -> set[Any]:
    """max_pool2d and avg_pool2d."""
    x, result = op.operands[0], op.results[0]
    place = lowering.place(x, narrow=True)
    program = Program(lowering)
    args: tuple[int, ...] = ()
    if op.name == "qcc.max_pool2d":
        kind = "max"
    elif (affine := affine_of(x)) is None:
        kind = "mean"
    else:
        kind = "mean_quantized"
        if op_attribute(op, "multipliers") is None or op_attribute(op, "mode", "f32") != "f32":
            raise error_at(op, "quantized qcc.avg_pool2d found no f32 'multipliers', expected one; run fold-quantized-pooling")
        args = (program.integer(int(affine.zero_points[0]) + stored_offset(x.type)), program.real(op_attribute(op, "multipliers")[0]))
        program.round_to(op)
    absorbed = elementwise.absorb(lowering, program, result)
    last = absorbed[-1].results[0] if absorbed else result
    y = lowering.result(last)
    (n, c, h, w), kernel, strides, padding = shape_of(result), *(op_attribute(op, name) for name in ("kernel", "strides", "padding"))
    frame = _Frame(lowering, program, y, lowering.halo_word(last))
    codelet = Window(
        isa=lowering.isa,
        op=kind,
        sizes=(n, h, w, c),
        image=(place.shape[2], place.shape[3]),
        kernel=tuple(kernel),
        strides=tuple(strides),
        padding=(padding[0], padding[1]),
        dilations=tuple(op_attribute(op, "dilations", [1, 1])),
        count_pad=bool(op_attribute(op, "count_include_pad", False)),
        args=args,
        x=place.operand(0, _pixels(place)),
        chunk=_chunk(n * h, w * c * math.prod(kernel)),
        **frame.fields(1),
    )
    lowering.call(codelet, [place, *frame.places])
    return {op, *absorbed}


def depthwise(
    lowering: Lowering, op: Any, place: Place, values: np.ndarray, bias: np.ndarray | None, compute: str, codes: LevelCodes | None = None
) -> set[Any]:
    """conv2d with one input and one output channel per group: x channels-last with its border, values [c, 1, kh, kw], bias [c]."""
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    last = absorbed[-1].results[0] if absorbed else op.results[0]
    y = lowering.result(last)
    (n, c, h, w), (kh, kw) = shape_of(op.results[0]), values.shape[2:]
    strides, padding, dilations = (op_attribute(op, name) for name in ("strides", "padding", "dilations"))
    packed = packing.pad_channels(values.reshape(c, kh * kw).T, ISAS[lowering.isa].lanes)  # [taps, c padded]
    element = "f32" if compute == "lane_f32" else packing.narrowest(values)
    if compute == "lane_i32" and takes_pairs(lowering.isa, place, values):
        compute, element, packed = "dot2_s16", "s16", _paired(values.reshape(c, kh * kw).T, kh, kw)
    frame = _Frame(lowering, program, y, lowering.halo_word(last))
    sn, _, sh, sw = place.strides
    recipe = None if codes is None else codes.taps(ISAS[lowering.isa].lanes)
    first = [place, lowering.weights(packed, element, recipe)]
    bias_operand = None
    if bias is not None:
        bias_operand = Operand(2, {"lane_f32": "f32", "lane_i64": "i64"}.get(compute, "i32"), (0, 0, 0, 1))
        first.append(lowering.weights(packing.pad_channels(bias.reshape(1, -1), ISAS[lowering.isa].lanes), bias_operand.element))
    codelet = Depthwise(
        isa=lowering.isa,
        compute=compute,
        sizes=(n, h, w, c),
        x=Operand(0, place.element, (sn, sh * strides[0], sw * strides[1], 1), place.offset - padding[0] * sh - padding[1] * sw),
        w=Operand(1, element, (0, 0, 0, 1)),
        taps=(kh, kw),
        tap_strides=(sh * dilations[0], sw * dilations[1]),
        columns=_columns(w, 5 if compute == "dot2_s16" else 8),
        chunk=_chunk(n * h, w * c * kh * kw),
        bias=bias_operand,
        **frame.fields(len(first)),
    )
    lowering.call(codelet, [*first, *frame.places])
    return {op, *absorbed}


def takes_pairs(isa: str, x: Place, values: np.ndarray) -> bool:
    """Whether a depthwise convolution of integers `values` over x can run by products of depth 2 of 16 channels."""
    facts = ISAS[isa]
    return facts.dot2 and facts.lanes == 8 and x.element == "u8" and len(values) % 16 == 0 and packing.narrowest(values) != "i32"


def _paired(taps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Weights [taps, c] as [pair, c / 16, 2, 8, 2] of `Depthwise`; what a pair lacks is 0."""
    held = np.concatenate([taps, np.zeros_like(taps[:1])])
    pairs = held[[[first, -1 if second is None else second] for first, second in tap_pairs(rows, columns)]]  # [pair, 2, c]
    blocks = pairs.reshape(len(pairs), 2, -1, 16)[..., PAIRED_CHANNELS]  # [pair, 2, c / 16, 2, 8]
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 4, 1))


def takes_quads(isa: str, x: Place, values: np.ndarray) -> bool:
    """Whether a depthwise convolution of integers `values` over x can run by products of depth 4: bytes, 64 at a time."""
    facts = ISAS[isa]
    return facts.dot4 and facts.lanes == LANES and x.element == "u8" and packing.narrowest(values) == "s8"


def depthwise_quads(lowering: Lowering, op: Any, place: Place, values: np.ndarray, bias: np.ndarray) -> set[Any]:
    """As `depthwise`, for u8 x s8: values [c, 1, kh, kw] of s8 range, bias [c] i32."""
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    last = absorbed[-1].results[0] if absorbed else op.results[0]
    y = lowering.result(last)
    (n, c, h, w), taps = shape_of(op.results[0]), (values.shape[2], values.shape[3])
    strides, padding, dilations = (op_attribute(op, name) for name in ("strides", "padding", "dilations"))
    sn, _, sh, sw = place.strides
    x_strides, tap_strides = (sn, sh * strides[0], sw * strides[1], 1), (sh * dilations[0], sw * dilations[1])
    pixels = max(p for p in range(1, min(4, w) + 1) if p == 1 or len(quads_of(taps[1], tap_strides[1], x_strides[2], p)) == 1)
    rows = min(h, max(1, 4 // pixels))  # 16 accumulators of the 32 registers
    frame = _Frame(lowering, program, y, lowering.halo_word(last))
    codelet = DepthwiseQuads(
        isa=lowering.isa,
        sizes=(n, h, w, c),
        x=Operand(0, place.element, x_strides, place.offset - padding[0] * sh - padding[1] * sw),
        w=Operand(1, "s8", (0, 0, 0, 0)),
        taps=taps,
        tap_strides=tap_strides,
        pixels=pixels,
        rows=rows,
        chunk=_chunk(n * math.ceil(h / rows), rows * w * c * math.prod(taps)),
        bias=Operand(2, "i32", (0, 0, 0, 0)),
        **frame.fields(3),
    )
    packed = [lowering.weights(_packed_quads(codelet, values), "s8"), lowering.weights(_interleaved(bias.reshape(c, 1))[..., 0], "i32")]
    lowering.call(codelet, [place, *packed, *frame.places])
    return {op, *absorbed}


def _packed_quads(codelet: DepthwiseQuads, values: np.ndarray) -> np.ndarray:
    """Weights [c, 1, kh, kw] as [block][tap row][pixel][quad][4][16][4] s8."""
    kh, kw = codelet.taps
    quads = codelet.quads()
    spread = np.zeros((values.shape[0], kh, codelet.pixels, len(quads), 4), np.int8)
    for pixel in range(codelet.pixels):
        for tap in range(kw):
            offset = pixel * codelet.x.strides[2] + tap * codelet.tap_strides[1]
            number, place = next((j, quad.index(offset)) for j, quad in enumerate(quads) if offset in quad)
            spread[:, :, pixel, number, place] = values[:, 0, :, tap]
    blocks = _interleaved(spread.reshape(values.shape[0], -1))  # [block, 4, 16, kh * pixels * quads * 4]
    blocks = blocks.reshape(*blocks.shape[:3], -1, 4)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 2, 4))


def _interleaved(values: np.ndarray) -> np.ndarray:
    """[c, ...] as [block, 4, 16, ...] in the order of `interleaved_channel`; missing channels are 0."""
    channels = values.shape[0]
    padded = np.concatenate([values, np.zeros((64, *values.shape[1:]), values.dtype)])
    order = [
        [[min(first + interleaved_channel(k, lane, vectors), channels) for lane in range(16)] for k in range(4)]
        for first, vectors in channel_blocks(channels)
    ]
    return padded[np.array(order)]


class _Frame:
    """Program operands, params and y of a codelet over (n, h, w, c)."""

    def __init__(self, lowering: Lowering, program: Program, y: Place, halo_word: int) -> None:
        self.program, self.y = program, y
        self.halo = None
        if any(y.halo):
            self.halo = y.fill(len(program.words))
            program.words.append(halo_word)
        self.params = [lowering.params(program.words)] if program.words else []
        self.places = [*program.operands, *self.params, y]

    def fields(self, first: int) -> dict[str, Any]:
        """Configuration fields with buffers numbered from `first`."""
        count = len(self.program.operands)
        return {
            "operands": tuple(p.operand(first + i, _pixels(p)) for i, p in enumerate(self.program.operands)),
            "steps": tuple(self.program.steps),
            "params": first + count if self.params else -1,
            "y": self.y.operand(first + count + len(self.params), _pixels(self.y)),
            "halo": self.halo,
        }


def _pixels(place: Place) -> Sequence[int]:
    """Strides of [n, c, h, w] over (n, h, w, c)."""
    n, c, h, w = place.strides
    return (n, h, w, c)


def _columns(width: int, most: int) -> int:
    """Pixels per register tile: as many as divide the row, or the best of half of `most` to `most`."""
    return min(range(min(most // 2, width), min(most, width) + 1), key=lambda q: (width % q != 0, -q))


def _chunk(rows: int, work_per_row: int) -> int:
    tasks = max(1, min(MOST_TASKS, rows * work_per_row // TASK_TAPS, rows))
    return even_chunk(rows, tasks)
