"""Linear layers and 1x1 convolutions of a real x whose constant f32 weights are mostly zero: which codelet runs each storage form, and its
call. The pixels of a convolution are the rows of x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qcc.dialects.codelet import Operand, RowLanes, SparseGather, SparseLanes, Step, Stream
from qcc.dialects.encodings import Encoding, encoding_of
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import ir, layer_name, op_attribute
from qcc.dialects.sparse_codelet import MOST_COLUMNS, lanes_shape
from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.tile.codelets import channel_parts, elementwise
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.products import last_of, rows_of
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.register_tile import TASK_MACS
from qcc.passes.tile.codelets.sparse_packing import bitmap_values, filled_up_bytes, gather_rows, lane_rows
from qcc.passes.tile.codelets.stream_packing import pack
from qcc.passes.values import producer, shape_of

MOST_TASKS = 16
MOST_TURNED_TASKS = 8  # each of which reads all of x
MOST_GATHERED_ROWS = 2  # of x; from three on it costs less to turn x around
_EXPAND, _GATHER, _BROADCAST = 6, 20, 2  # time of a weight expanded, gathered for, or broadcast, in dense multiply-adds: sizes tasks only
Codelet = SparseGather | SparseLanes | Stream
CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_NOWHERE = Operand(0, "f32", (0, 0))


def is_pointwise(op: Any) -> bool:
    """Whether conv2d `op` multiplies every pixel of x with the same matrix, and starts at constants."""
    if op.name != "qcc.conv2d" or op_attribute(op, "groups") != 1 or shape_of(op.operands[1])[2:] != [1, 1]:
        return False
    plain = list(op_attribute(op, "strides")) == [1, 1] and not any(op_attribute(op, "padding"))
    return plain and (len(op.operands) < 3 or producer(op.operands[2], "qcc.constant") is not None)


def encoding(op: Any) -> Encoding | None:
    """How the constant f32 weights of linear layer or convolution `op` are stored, where a codelet below takes them."""
    constant = producer(op.operands[1], "qcc.constant")
    if constant is None:
        return None
    kind = ir.RankedTensorType(constant.results[0].type)
    return encoding_of(kind) if isinstance(kind.element_type, ir.F32Type) and kind.encoding is not None else None


def configuration(kind: str, isa: str, rows: int, channels: int, k: int, density: float) -> Codelet | None:
    """The codelet for weights stored as `kind` (of `dialects.encodings.KINDS`), its operands left open; None where there is none."""
    lanes, sizes = ISAS[isa].lanes, (rows, channels, k)
    blocks = -(-channels // lanes)
    if kind == "bitmap" and lanes == 16:
        vectors = min(blocks, 4 if rows <= 4 else 2)
        return Stream(
            isa=isa,
            compute="f32",
            decoder="bitmap_f32",
            bits=32,
            sizes=sizes,
            group=k,
            vectors=vectors,
            chunk=_chunk(-(-blocks // vectors), (rows + _EXPAND) * channels * k),
            x=_NOWHERE,
            w=Operand(1, "u8", (1,)),
            operands=(),
            steps=(),
            y=_NOWHERE,
        )
    if kind != "csr" or k > MOST_COLUMNS:
        return None
    common: dict[str, Any] = {"isa": isa, "sizes": sizes, "x": _NOWHERE, "w": Operand(1, "u8", (1,)), "starts": 2}
    common |= {"operands": (), "steps": (), "y": _NOWHERE}
    stored = int(rows * channels * k * density)
    if rows <= MOST_GATHERED_ROWS:
        return SparseGather(chunk=_chunk(blocks, _GATHER * stored), counts=3, **common)
    vectors, depth = lanes_shape(isa, rows)
    chunk = _chunk(blocks, _BROADCAST * stored, most=MOST_TURNED_TASKS) * lanes
    return SparseLanes(vectors=vectors, depth=depth, padded_k=-(-k // lanes) * lanes, chunk=chunk, **common)


def expected_bytes(codelet: Codelet, density: float) -> int:
    """What `codelet` reads of weights of which `density` are not zero, in no order, index and padding included."""
    _, channels, k = codelet.sizes
    lanes, stored = ISAS[codelet.isa].lanes, density * channels * k
    if isinstance(codelet, SparseGather):
        return int(6 * (stored + channels * min(1.0, stored) * (lanes - 1) / 2) + channels * (4 + 8 / lanes))
    if isinstance(codelet, SparseLanes):
        whole = -(-channels // codelet.group) * codelet.group  # every task but the last has whole groups
        cells = codelet.k_blocks * -(-channels // codelet.chunk)
        filled = filled_up_bytes(codelet.group, codelet.depth, density, cells)
        return int(6 * stored * whole / channels) + codelet.heads_bytes + int(filled)
    return int(4 * stored) + channels * k // 8 + 4 * channels


def _chunk(blocks: int, macs: int, most: int = MOST_TASKS) -> int:
    """Blocks of a task, where the layer takes the time of `macs` dense multiply-adds."""
    return -(-blocks // max(1, min(most, macs // TASK_MACS, blocks)))


def row_lanes(codelet: SparseLanes) -> RowLanes:
    """What brings x into the order that `codelet` reads; operands left open."""
    rows, _, k = codelet.sizes
    lanes = ISAS[codelet.isa].lanes
    blocks = -(-k // lanes)
    return RowLanes(codelet.isa, (rows, k), codelet.vectors * lanes, _chunk(blocks, rows * k * 16), _NOWHERE, _NOWHERE)


def linear(lowering: Lowering, op: Any) -> set[Any]:
    """Lower `op`, whose f32 weights are encoded, and the element-wise operations behind it."""
    stored, result = encoding(op), op.results[0]
    assert stored is not None
    w = np.ascontiguousarray(lowering.constant_of(op, op.operands[1], "weight"), np.float32)
    n, k = w.shape[:2]
    w = w.reshape(n, k)
    program = Program(lowering)
    bias = lowering.constant_or_none(op.operands[2]) if len(op.operands) > 2 else None
    if len(op.operands) > 2 and bias is None:
        program.steps.append(Step("float", (program.operand(lowering.place(op.operands[2]).broadcast(shape_of(result))),), kind="add"))
    absorbed = elementwise.absorb(lowering, program, result)
    x, y = lowering.place(op.operands[0]), lowering.result(last_of(op, absorbed))
    bordered = y if any(y.halo) else None
    if bordered is not None:  # is filled by a copy: only maps and contractions write borders
        y = lowering.image(y.element, y.shape)
    if op.name == "qcc.conv2d":
        x, y = x.transposed(CHANNELS_LAST), y.transposed(CHANNELS_LAST)
        program.operands[:] = [place.transposed(CHANNELS_LAST) for place in program.operands]
    x, sizes, strides = rows_of(lowering, x, program.operands, y)
    density = float(np.count_nonzero(w) / w.size)
    codelet = configuration(stored.kind, lowering.isa, sizes[0], n, k, density)
    assert codelet is not None, f"select-sparse-format chose {stored.kind} for {lowering.isa}"
    x_operand = Operand(0, "f32", (strides[0][0], 1), x.offset)
    if isinstance(codelet, SparseLanes):
        x, x_operand = _rows_innermost(lowering, row_lanes(codelet), x, x_operand)
    stored_bytes = 0
    for first, count in channel_parts.cut(lowering, n, expected_bytes(codelet, density) / n):
        own = configuration(stored.kind, lowering.isa, sizes[0], count, k, density)
        assert own is not None
        behind, result = channel_parts.take(program, y, (first, count), len(y.shape) - 1)
        start = None if bias is None else bias[first : first + count]
        stored_bytes += _call(lowering, own, x, x_operand, w[first : first + count], start, behind, result, strides)
    if bordered is not None:
        elementwise.copy(lowering, y.transposed(CHANNELS_FIRST), bordered, halo_word=lowering.halo_word(last_of(op, absorbed)))
    words = {"sparse_gather": "compressed rows", "sparse_lanes": "compressed rows"}.get(codelet.kind, "bitmap")
    lowering.fact(
        layer_name(op.location),
        stored_format=f"{words} and the {density:.0%} that are not 0 in f32",
        stored_bytes=stored_bytes,
        activations="float",
    )
    return {op, *absorbed}


def _call(
    lowering: Lowering,
    codelet: Codelet,
    x: Place,
    x_operand: Operand,
    w: np.ndarray,
    bias: np.ndarray | None,
    program: Program,
    y: Place,
    strides: Sequence[Sequence[int]],
) -> int:
    """Pack w [channels, k] and call `codelet`; bytes of the weights. `strides` over (rows, channels) of x, of the program's operands and
    of y."""
    n = len(w)
    places: list[Place] = [x]
    extra: dict[str, Any] = {"x": x_operand}
    scratch = 0
    if isinstance(codelet, SparseGather):
        stream, starts, counts = gather_rows(codelet, w)
        places += [lowering.stream(stream), lowering.weights(starts, "i64"), lowering.weights(counts, "i32")]
    elif isinstance(codelet, SparseLanes):
        stream, starts = lane_rows(codelet, w)
        places += [lowering.stream(stream), lowering.weights(starts.reshape(-1), "i64")]
        scratch = codelet.scratch_bytes
    else:
        masks = pack(codelet, (w != 0).view(np.uint8), np.ones((n, 1), np.float32), np.zeros((n, 1), np.float32))
        values, starts = bitmap_values(codelet, w)
        extra |= {"values": 2, "starts": 3}
        places += [lowering.weights(masks, "u8"), lowering.weights(values, "u8"), lowering.weights(starts, "i64")]
        scratch = StreamLayout(codelet).scratch_bytes
    stored_bytes = sum(int(place.buffer.owner.attributes["size_bytes"].value) for place in places[1:])
    if bias is not None:
        extra["bias"] = Operand(len(places), "f32", (0, 1))
        places.append(lowering.constant_place(np.pad(bias.astype(np.float32), (0, -n % (4 * ISAS[lowering.isa].lanes)))))
    extra["operands"] = tuple(place.operand(len(places) + i, strides[1 + i]) for i, place in enumerate(program.operands))
    places += program.operands
    extra["params"] = lowering.append_params(places, program.words)
    codelet = replace(codelet, **extra, steps=tuple(program.steps), y=y.operand(len(places), strides[-1]))
    lowering.call(codelet, [*places, y], scratch_bytes=scratch)
    return stored_bytes


def _rows_innermost(lowering: Lowering, codelet: RowLanes, x: Place, x_operand: Operand) -> tuple[Place, Operand]:
    """A temporary with x turned around, and how it is read."""
    blocks = -(-codelet.sizes[0] // codelet.width)
    y = lowering.temporary("f32", [blocks, codelet.padded_k, codelet.width])
    lowering.call(replace(codelet, x=x_operand, y=y.operand(1, y.strides)), [x, y])
    return y, Operand(0, "f32", y.strides, y.offset)
