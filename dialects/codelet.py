"""The configuration of a codelet: everything its code depends on, and nothing else.

`lower-to-codelets` writes a configuration as the `qtile.codelet` attribute of a declaration, `generate-codelets` reads it. Two calls
with equal configurations share one function, so what differs between layers of the same shape (weights, zero points, multipliers)
is in buffers: arrays as operands, scalars as 32-bit words of the `params` buffer. Decision 0002 gives the calling convention.

All strides and offsets count elements. An operand's strides follow the codelet's iteration space, named in each class.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from qcc.dialects.attention_codelet import Attend
from qcc.dialects.chosen_codelet import Embedding, Insert
from qcc.dialects.column_codelet import Columns
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.sign_codelet import PackSigns, Signs
from qcc.dialects.sparse_codelet import RowLanes, SparseGather, SparseLanes, SparsePixels
from qcc.dialects.stream_codelet import Stream
from qcc.dialects.window_codelet import Depthwise, DepthwiseQuads, Window
from qcc.dialects.winograd_codelet import Winograd

NOTHING = 1 << 16  # an argument of a step that is the integer 0 and takes no instruction
CURRENT = NOTHING + 1  # an argument of a step that is the current value

WIDE = ("lane_i64", "dot2_s16_i64")
"""Values of `compute` that sum in 64 bits."""

FLOATS = ("dot2_bf16", "lane_f32")
"""Values of `compute` that sum in f32."""

ELEMENT_BYTES = {"u8": 1, "s8": 1, "u16": 2, "s16": 2, "i32": 4, "i64": 8, "f32": 4, "bf16": 2, "i1": 1}


@dataclass(frozen=True)
class Operand:
    """A strided place in buffer number `buffer`."""

    buffer: int
    element: str  # of ELEMENT_BYTES
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Halo:
    """The border of a channels-last image buffer [n, top + h + bottom, left + w + right, c] that task 0 fills with one value."""

    images: int
    rows: tuple[int, int, int]  # top, h, bottom
    columns: tuple[int, int, int]  # left, w, right
    channels: int
    param: int  # word of `params` with the value


@dataclass(frozen=True)
class Step:
    """One operation on the current vector of values, after the operand was loaded or the accumulator completed.

    `args` name its arguments: a number n >= 0 is word n of `params`, broadcast; n < 0 is operand -1 - n at the same place of the
    iteration space; NOTHING is 0.
    `passes/llvm/codelets/steps.py` has one function per `op`.
    """

    op: str
    args: tuple[int, ...] = ()
    kind: str = ""
    swapped: bool = False  # the current value is the second argument of a binary operation
    bounds: str = ""  # of a step that rounds: "after", if its value is known to fit i32 and may be clamped afterwards; "byte", if to 0..255


@dataclass(frozen=True)
class Map:
    """Element by element over `sizes`, the last dimension being the vector one: load operands[0], run the steps, store y.

    `split` is the dimension divided among tasks and `chunk` its indices per task.
    """

    isa: str
    sizes: tuple[int, ...]
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    split: int
    chunk: int
    params: int = -1  # number of the params buffer, -1 without
    halo: Halo | None = None
    kind: str = "map"


@dataclass(frozen=True)
class Listed:
    """A reduction of pairs_u8s8 whose steps are listed, in the order that `passes/tile/codelets/byte_pairs.py` packs and describes.

    `index` and `offsets` are numbers of buffers, `classes` the steps of an item, class by class.
    """

    index: int
    offsets: int
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Contraction:
    """Convolution, linear and matmul: acc[n, g, h, w, c] = bias[c] + sum over the reduction of x * w, then the steps, then the store.

    The iteration space of every operand is (n, g, h, w, c); x has stride 0 in c. The reduction is `taps[0]` times `taps[1]` runs of
    `run` contiguous elements of x, `tap_strides` apart. Weights are packed [n][g][h][block][tap][step][vector][lane][depth] (absent
    n, g, h have stride 0 in `w.strides`, whose last entry is the stride of a block); a block is `tile[2]` vectors of channels, the
    last one as many as are left. `ahead`: they are constants, and those behind the ones in use are prefetched. `tile` is rows, columns
    and vectors of the register tile. Tasks are n * g * block chunks * row chunks.
    `sums` is a buffer of u8 quadruples, or s16 pairs, per step of a run (1 where the run has an element, 0 in its padding), present when
    `zero` (a per channel i32 operand) times the sum of x is to be subtracted: weights whose zero point is not in the packed bytes.
    `listed`: the steps of the reduction and where their weights are stand in tables instead. `signs`: x and w are bits.
    dot2_bf16 takes the last two elements of an odd run in its last step, whose first weight is 0: nothing behind a run is read.
    `segment`: steps of dot2_s16_i64, a divisor of those of a run, that are summed in 32 bits before the sum is widened.
    """

    isa: str
    compute: str  # dot4_u8s8, pairs_u8s8, dot2_s16, dot2_s16_i64, dot2_bf16, popcount_words, popcount_bytes, lane_i32, lane_i64, lane_f32
    sizes: tuple[int, int, int, int, int]
    x: Operand
    w: Operand
    taps: tuple[int, int]
    tap_strides: tuple[int, int]
    run: int
    tile: tuple[int, int, int]
    chunks: tuple[int, int]  # blocks per task, rows per task
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand | None = None
    zero: Operand | None = None
    ahead: bool = True
    sums: int = -1
    params: int = -1
    halo: Halo | None = None
    listed: Listed | None = None
    signs: Signs | None = None
    segment: int = 0
    kind: str = "contraction"


@dataclass(frozen=True)
class TileContraction:
    """A contraction on a matrix unit: tiles of `rows` pixels x 16 channels, whose reduction takes `depth` elements at a time.

    Sizes, operands, taps and runs are as in `Contraction`. The pixels of an image row are cut into tiles, the last of which ends with the
    row (and overlaps the one before). With `pitch` > 0, x is linear in h * pitch + w, and the whole image is one such row, of which only
    the first `sizes[3]` of every `pitch` pixels are results. Weights are packed [n][g][h][block of 16 channels][tap][run padded to whole
    depths / quad][16][quad], quad being what 4 bytes hold; padding is 0, so that what x holds behind a run does not matter.
    `tile` is how many tiles of pixels and of channels are accumulated at once, `chunks` the register tiles of channels and of pixels of a
    task. `bias` starts the accumulators and has stride 0 in w. `sums` and `zero` are as in `Contraction`, the ones of `sums` in one column.
    """

    isa: str
    compute: str  # tile_u8s8, tile_bf16
    sizes: tuple[int, int, int, int, int]
    pitch: int
    x: Operand
    w: Operand
    taps: tuple[int, int]
    tap_strides: tuple[int, int]
    run: int
    rows: int
    depth: int
    tile: tuple[int, int]
    chunks: tuple[int, int]
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand | None = None
    zero: Operand | None = None
    sums: int = -1
    params: int = -1
    halo: Halo | None = None
    kind: str = "tile_contraction"

    @property
    def image(self) -> tuple[int, int]:
        """Rows and pixels of a row as tiles cut them."""
        _, _, h, w, _ = self.sizes
        return (1, (h - 1) * self.pitch + w) if self.pitch else (h, w)

    @property
    def units(self) -> tuple[int, int]:
        """Register tiles over the pixels: rows, and how many in a row."""
        rows, pixels = self.image
        return rows, -(-pixels // (self.rows * self.tile[0]))

    @property
    def blocks(self) -> int:
        """Register tiles over the channels, a partial last one included."""
        return -(-self.sizes[4] // (16 * self.tile[1]))

    @property
    def scratch_bytes(self) -> int:
        """Thread scratch that a task uses: the tile configuration, a register tile of accumulators [pixel][channel], sums of x [pixel]."""
        pixels = self.tile[0] * self.rows
        sums = 0 if self.zero is None else self.chunks[1] * pixels * 4
        return 64 + pixels * self.tile[1] * 16 * 4 + sums


@dataclass(frozen=True)
class Rows:
    """Operations along the last, contiguous dimension of x: softmax, normalize or rms_normalize (word `args[0]` is epsilon), or a
    reduction.

    `sizes` are the outer dimensions and the length of a row. Reductions (sum, mean, max, min) give one value per row: strides of y and
    operands in the last dimension are not used. f32 throughout until the steps. A task is `chunk` indices of dimension 0.
    """

    isa: str
    op: str
    sizes: tuple[int, ...]
    args: tuple[int, ...]
    x: Operand
    chunk: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    params: int = -1
    kind: str = "rows"


@dataclass(frozen=True)
class TableSoftmax:
    """Softmax of stored bytes along the last, contiguous dimension: e = table[max - x], y = rint(e * (multiplier / sum e)) + zero, clamped.

    `sizes` are the outer dimensions and the length of a row. `table` is an i32 operand of 256, or u8 [2][256]: low bytes, then high bytes.
    Words `args`: multiplier (f32), zero point, low and high of the stored result (i32). A task is `chunk` indices of dimension 0.
    """

    isa: str
    sizes: tuple[int, ...]
    x: Operand
    table: Operand
    args: tuple[int, int, int, int]
    y: Operand
    params: int
    chunk: int
    kind: str = "table_softmax"


@dataclass(frozen=True)
class DynamicRange:
    """Least and greatest of f32 x [size] and 0: task i, for `chunk` elements, writes y[i] and y[RANGE_PARTS + i]."""

    isa: str
    size: int
    chunk: int
    x: Operand
    y: Operand
    kind: str = "dynamic_range"


@dataclass(frozen=True)
class DynamicQuantize:
    """u8 levels of f32 x [size] by the range that `ranges` holds (see DynamicRange, `parts` tasks): ONNX DynamicQuantizeLinear.

    Task 0 also writes `scale` f32 [1] and `zero` i32 [1]. A task is `chunk` elements.
    """

    isa: str
    size: int
    chunk: int
    parts: int
    x: Operand
    ranges: Operand
    scale: Operand
    zero: Operand
    y: Operand
    kind: str = "dynamic_quantize"


@dataclass(frozen=True)
class RowQuantize:
    """u8 levels of every row of f32 x [rows, size] by its own range, with its `scale` f32 [rows] and `zero` i32 [rows].

    `symmetric` and `epsilon` as in `qcc.round_dynamic`. A task is `chunk` rows.
    """

    isa: str
    sizes: tuple[int, int]
    symmetric: bool
    epsilon: float
    chunk: int
    x: Operand
    scale: Operand
    zero: Operand
    y: Operand
    kind: str = "row_quantize"


RANGE_PARTS = 16  # the most tasks of a DynamicRange


@dataclass(frozen=True)
class Pack:
    """The computed right operand of a matmul, x[b0, b1, k, n] u8, packed for dot4: [b0][b1][block][step][vector][lane][4] s8, stored - 128.

    `bias`[b0, b1, n padded to whole blocks] i32 becomes word `args[1]` - word `args[0]` * the sum over k of the packed column. A task is
    `chunk` of the b0 * b1 matrices.
    """

    isa: str
    sizes: tuple[int, int, int, int]
    vectors: int
    x: Operand
    bias: Operand
    y: Operand
    args: tuple[int, int]
    params: int
    chunk: int
    kind: str = "pack"


@dataclass(frozen=True)
class PackPairs(Pack):
    """As `Pack`, for dot2_s16: [b0][b1][block][step][vector][lane][2] s16, stored - word `args[1]`.

    `bias`[b0, b1, n padded to whole blocks] i32 becomes -word `args[0]` * the sum over k of the packed column.
    """

    kind: str = "pack_pairs"


@dataclass(frozen=True)
class PackBf16:
    """The computed right operand of a matmul, x[b0, b1, k, n] bf16, packed for dot2_bf16: [b0][b1][block][step][vector][lane][2].

    The last step of an odd k is 0 and the last row. A task is `chunk` of the b0 * b1 matrices.
    """

    isa: str
    sizes: tuple[int, int, int, int]
    vectors: int
    x: Operand
    y: Operand
    chunk: int
    kind: str = "pack_bf16"


_KINDS = (
    Map,
    Contraction,
    TileContraction,
    Winograd,
    Depthwise,
    DepthwiseQuads,
    Window,
    Rows,
    TableSoftmax,
    Attend,
    DynamicRange,
    DynamicQuantize,
    RowQuantize,
    Embedding,
    Insert,
    Pack,
    PackPairs,
    PackBf16,
    PackSigns,
    Columns,
    Stream,
    SparseGather,
    RowLanes,
    SparseLanes,
    SparsePixels,
)
KINDS: dict[str, Any] = {cls.kind: cls for cls in _KINDS}


def to_config(codelet: Any) -> dict[str, Any]:
    """Nested dictionary of a configuration, without what is absent."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(v) for f in dataclasses.fields(value) if (v := getattr(value, f.name)) is not None}
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return plain(codelet)


def from_config(config: dict[str, Any]) -> Any:
    """The configuration object of `to_config`'s dictionary. Raises KeyError for an unknown kind."""
    return _build(KINDS[config["kind"]], config)


_NESTED: dict[str, Any] = {
    "q": Operand,
    "k": Operand,
    "v": Operand,
    "mask": Operand,
    "x": Operand,
    "w": Operand,
    "y": Operand,
    "bias": Operand,
    "table": Operand,
    "ids": Operand,
    "positions": Operand,
    "zero": Operand,
    "ranges": Operand,
    "scale": Operand,
    "operands": Operand,
    "steps": Step,
    "halo": Halo,
    "listed": Listed,
    "signs": Signs,
}


def _build(cls: Any, config: dict[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for key, value in config.items():
        nested = _NESTED.get(key)
        if isinstance(value, list):
            values[key] = tuple(_build(nested, v) if nested else v for v in value)
        else:
            values[key] = _build(nested, value) if nested and isinstance(value, dict) else value
    return cls(**values)


def symbol(codelet: Any) -> str:
    """A name that is equal exactly for equal configurations."""
    text = json.dumps(to_config(codelet), sort_keys=True)
    return f"{codelet.kind}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def without_offsets(codelet: Any) -> tuple[Any, dict[int, int]]:
    """`codelet` with operands that begin where their buffers do, and for every other one the bytes by which a call moves its buffer.

    So calls that differ only in where operands lie, such as the steps of a recurrent layer, share a function. What would lie before the
    buffer stays in the configuration, and so does the place of a y inside the border that the codelet fills.
    """
    bytes_of: dict[int, int] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(v) for v in value)
        if not isinstance(value, Operand) or value.offset <= 0:
            return value
        assert value.buffer not in bytes_of, codelet
        bytes_of[value.buffer] = value.offset * ELEMENT_BYTES[value.element]
        return dataclasses.replace(value, offset=0)

    kept = ("y",) if getattr(codelet, "halo", None) is not None else ()
    changed = {f.name: moved(getattr(codelet, f.name)) for f in dataclasses.fields(codelet) if f.name not in kept}
    return dataclasses.replace(codelet, **changed), bytes_of


def tasks(codelet: Any) -> int:
    """How many independent tasks a call of the codelet has."""
    if isinstance(codelet, Map):
        return -(-codelet.sizes[codelet.split] // codelet.chunk)
    if isinstance(codelet, Winograd):
        width = codelet.tile[2] * ISAS[codelet.isa].lanes
        return codelet.tiles // codelet.strip * -(-(codelet.sizes[3] // width) // codelet.chunk)
    if isinstance(codelet, Contraction):
        n, g, h, _, _ = codelet.sizes
        return n * g * -(-blocks(codelet) // codelet.chunks[0]) * -(-h // codelet.chunks[1])
    if isinstance(codelet, TileContraction):
        rows, units = codelet.units
        return codelet.sizes[0] * codelet.sizes[1] * -(-codelet.blocks // codelet.chunks[0]) * -(-rows * units // codelet.chunks[1])
    if isinstance(codelet, DepthwiseQuads):
        return -(-codelet.sizes[0] * -(-codelet.sizes[1] // codelet.rows) // codelet.chunk)
    if isinstance(codelet, DynamicRange | DynamicQuantize):
        return -(-codelet.size // codelet.chunk)
    if isinstance(codelet, Columns):
        return -(-codelet.sizes[0] // codelet.width)
    if isinstance(codelet, Stream):
        return -(-codelet.sizes[1] // (codelet.vectors * codelet.lanes * codelet.chunk))
    if isinstance(codelet, SparseGather | RowLanes):
        return -(-codelet.sizes[1] // (ISAS[codelet.isa].lanes * codelet.chunk))
    if isinstance(codelet, SparseLanes):
        return -(-codelet.sizes[1] // codelet.chunk)
    if isinstance(codelet, SparsePixels):
        return -(-codelet.tiles // codelet.strip) * -(-codelet.sizes[3] // codelet.chunk)
    if isinstance(codelet, Depthwise | Window | Pack | PackBf16 | PackSigns | Attend):
        return -(-codelet.sizes[0] * codelet.sizes[1] // codelet.chunk)
    return -(-codelet.sizes[0] // codelet.chunk)


def weight_operands(config: dict[str, Any]) -> list[int]:
    """Numbers of the operands that hold a codelet's weights, values and where they are; empty where that is one operand, or none."""
    parts = [number for name in ("values", "starts", "counts") if (number := config.get(name, -1)) >= 0]
    return [config["w"]["buffer"], *parts] if parts else []


def blocks(codelet: Contraction) -> int:
    """Number of channel blocks, a partial last one included."""
    return -(-codelet.sizes[4] // (codelet.tile[2] * ISAS[codelet.isa].lanes))
