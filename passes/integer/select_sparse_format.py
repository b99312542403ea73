"""Look at the zeros of every constant weight and state, in its type's encoding, the storage form that pays for the target.

Before:

    %w = qcc.constant : tensor<64x64x!quant.uniform<i8:f32, 0.5>>                  // two of four neighbours are 0

After:

    %w = qcc.constant : tensor<64x64x!quant.uniform<i8:f32, 0.5>, #qcc.sparse<"n:m", {n = 2, m = 4, axis = 1}, "raw">>

Candidates are dense, removed channels, blocks, n:m along the input channels, kernel patterns, bitmap, compressed rows with relative index
and run-length; their bytes are counted exactly as `runtime/reference/storage.py` stores them. A candidate is chosen where the target has
code for it (`formats`), its bytes are at most `saving` of the dense ones and, unless the user optimises for size, the density is at
most the break-even `density`, below which skipping zeros is predicted to cost less time than multiplying by them (removed channels leave
a smaller dense layer, which is faster at any density). Among those the one with the fewest bytes wins.

Requires: integer form. The zero of a quantized weight is its zero point.
Guarantees: values unchanged, the payload stays dense. Facts per layer: density, nonzeros, storage_bytes (of each candidate), storage and
storage_reason.
Why: Han et al., "Learning both weights and connections ...", NIPS 2015; a sparse form costs its index, so it must be weighed against dense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import compressed_types, element_types, encodings
from qcc.dialects.encodings import Encoding
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, ir, layer_name, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import attributes_of, constant_array, producer

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_PRODUCTS = ("qcc.conv2d", "qcc.linear")
_BLOCKS = ((4, 4), (8, 1), (1, 8), (16, 1), (1, 16))
_GROUPS = ((1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8))
_INDEX_BITS = 4  # relative index of EIE (Han et al., ISCA 2016) and run length of Eyeriss (Chen et al., JSSC 2017: 5 bits)
_STRUCTURED_DENSITY = 0.8  # above it no structured form but removed channels can save anything


@dataclass(frozen=True)
class Options:
    """`formats`: kinds the target has code for, joined by +; `density` and `saving`: the break-even; `optimize`: time or size."""

    formats: str = ""
    density: float = 0.5
    saving: float = 0.9
    optimize: str = "time"


class SelectSparseFormatPass(Pass):
    """See the module's docstring."""

    name = "select-sparse-format"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Decide for every weight of a convolution or linear layer."""
        runnable = [name for name in self.options.formats.split("+") if name]
        for name in runnable:
            if name not in encodings.KINDS:
                raise QccError(f"select-sparse-format knows no format '{name}', expected some of {', '.join(encodings.KINDS)}")
        for op in walk(module):
            if op.name in _PRODUCTS and (constant := _weight(op)) is not None:
                self.select(op, constant, runnable, context)

    def select(self, op: Any, constant: Any, runnable: list[str], context: PassContext) -> None:
        kind = ir.RankedTensorType(constant.results[0].type)
        array = constant_array(constant.results[0])
        kept = None if array is None else nonzero(array, kind)
        if kept is None or kept.ndim < 2 or kind.encoding is not None:
            return
        count = int(np.count_nonzero(kept))
        sizes = candidates(kept, count, element_types.bits_of(kind))
        best, reason = self.choose(sizes, count / kept.size, runnable)
        context.fact(
            layer_name(op.location),
            density=count / kept.size,
            nonzeros=count,
            storage_bytes={_label(e): n for e, n in sizes},
            storage=_label(best),
            storage_reason=reason,
        )
        if best.kind != "dense":
            changed = ir.RankedTensorType.get(list(kind.shape), kind.element_type, encodings.make_encoding(best))
            at = ir.InsertionPoint(constant)
            replace_op(constant, create("qcc.constant", [], [changed], attributes_of(constant), loc=constant.location, ip=at).results)

    def choose(self, sizes: list[tuple[Encoding, int]], density: float, runnable: list[str]) -> tuple[Encoding, str]:
        """The encoding that pays, and why in words."""
        dense, dense_bytes = sizes[0]
        best, best_bytes = min(sizes, key=lambda item: item[1])
        if best_bytes > self.options.saving * dense_bytes:
            return dense, f"no sparse form saves {1 - self.options.saving:.0%}: {_label(best)} takes {best_bytes} of {dense_bytes} bytes"
        able = [(e, n) for e, n in sizes if e.kind in runnable and n <= self.options.saving * dense_bytes]
        if not able:
            return dense, f"{_label(best)} would take {best_bytes} of {dense_bytes} bytes, but the target has no code for it"
        chosen, chosen_bytes = min(able, key=lambda item: item[1])
        if self.options.optimize == "time" and chosen.kind != "channel" and density > self.options.density:
            return (
                dense,
                f"{_label(chosen)} would take {chosen_bytes} of {dense_bytes} bytes, but is slower above density {self.options.density}",
            )
        return chosen, f"{chosen_bytes} of {dense_bytes} bytes at density {density:.3f}"


def nonzero(array: np.ndarray, kind: ir.RankedTensorType) -> Mask | None:
    """Where stored elements do not mean 0; None for types without a zero of their own."""
    if (affine := element_types.affine(kind)) is not None:
        return array != affine.expand(affine.zero_points, array.shape)
    described = compressed_types.describe(kind)
    if isinstance(kind.element_type, ir.FloatType) or isinstance(described, compressed_types.Ternary | compressed_types.Log2):
        return array != 0
    return None


def candidates(kept: Mask, count: int, bits: int) -> list[tuple[Encoding, int]]:
    """Every encoding that can hold the mask [o, ...] of non-zeros with its bytes for elements of `bits`; dense first, then from the most
    to the least regular, so that of equal sizes the more regular one is found first."""
    size = kept.size
    found = [(Encoding(), _bytes(size * bits))]
    bitmap = Encoding("bitmap"), _bytes(size) + _bytes(count * bits)
    for axis in (0, 1):
        alive = int(np.count_nonzero(kept.any(axis=tuple(i for i in range(kept.ndim) if i != axis))))
        if alive < kept.shape[axis]:
            stored = size // kept.shape[axis] * alive
            found.append((Encoding("channel", {"axis": axis}), _bytes(kept.shape[axis]) + _bytes(stored * bits)))
    if count > _STRUCTURED_DENSITY * size:
        return [*found, bitmap]
    found += _blocks(kept, bits) + _groups(kept, bits)
    if kept.ndim == 4 and 1 < kept.shape[2] * kept.shape[3] <= 64:
        found += _patterns(kept, count, bits)
    found.append(bitmap)
    rows = kept.reshape(kept.shape[0], -1)
    longest = (1 << _INDEX_BITS) - 1
    stored = count + _fillers(rows, longest)
    index = {"index_bits": _INDEX_BITS, "relative": True}
    found.append((Encoding("csr", index), 4 * (len(rows) + 1) + _bytes(stored * _INDEX_BITS) + _bytes(stored * bits)))
    stored = count + _fillers(kept.reshape(1, -1), longest)
    found.append((Encoding("run-length", {"run_bits": _INDEX_BITS}), 4 + _bytes(stored * _INDEX_BITS) + _bytes(stored * bits)))
    return found


def _blocks(kept: Mask, bits: int) -> list[tuple[Encoding, int]]:
    matrix = kept.reshape(kept.shape[0], -1)
    found: list[tuple[Encoding, int]] = []
    for b0, b1 in _BLOCKS:
        rows, columns = -(-matrix.shape[0] // b0), -(-matrix.shape[1] // b1)
        padded = np.zeros((rows * b0, columns * b1), np.bool_)
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
        filled = int(np.count_nonzero(padded.reshape(rows, b0, columns, b1).any(axis=(1, 3))))
        found.append((Encoding("block", {"shape": [b0, b1]}), _bytes(rows * columns) + _bytes(filled * b0 * b1 * bits)))
    return found


def _groups(kept: Mask, bits: int) -> list[tuple[Encoding, int]]:
    """n:m along the input channels, where every m neighbours have at most n non-zeros."""
    found: list[tuple[Encoding, int]] = []
    most: dict[int, int] = {}
    for n, m in _GROUPS:
        if kept.shape[1] < m:
            continue
        if m not in most:
            last = np.moveaxis(kept, 1, -1)
            padded = np.zeros((*last.shape[:-1], -(-last.shape[-1] // m) * m), np.bool_)
            padded[..., : last.shape[-1]] = last
            most[m] = int(padded.reshape(-1, m).sum(axis=1).max(initial=0))
        if most[m] <= n:
            stored = kept.size // kept.shape[1] * -(-kept.shape[1] // m) * n
            index = _bytes(stored * (m - 1).bit_length())
            found.append((Encoding("n:m", {"n": n, "m": m, "axis": 1}), index + _bytes(stored * bits)))
    return found


def _patterns(kept: Mask, count: int, bits: int) -> list[tuple[Encoding, int]]:
    taps = kept.shape[2] * kept.shape[3]
    kernels = kept.reshape(-1, taps)
    patterns = len(np.unique(np.packbits(kernels, axis=1), axis=0))
    if patterns > 256:
        return []
    index = _bytes(len(kernels) * max(1, (patterns - 1).bit_length()))
    return [(Encoding("pattern"), _bytes(patterns * taps) + 2 + index + _bytes(count * bits))]


def _fillers(rows: Mask, longest: int) -> int:
    """Zeros stored because a gap to the previous non-zero of the row is longer than `longest`."""
    row, column = np.nonzero(rows)
    if not row.size:
        return 0
    first = np.concatenate([[True], row[1:] != row[:-1]])
    gaps = np.where(first, column, column - np.concatenate([[0], column[:-1]]) - 1)
    return int((gaps // (longest + 1)).sum())


def _bytes(bits: int) -> int:
    return math.ceil(bits / 8)


def _label(encoding: Encoding) -> str:
    """The encoding in words for facts: `block 4x4`, `2:4`, `channel 0`."""
    given = encoding.parameters
    match encoding.kind:
        case "block":
            return "block " + "x".join(str(b) for b in given["shape"])
        case "n:m":
            return f"{given['n']}:{given['m']}"
        case "channel":
            return f"channel {given['axis']}"
        case kind:
            return kind


def _weight(op: Any) -> Any:
    """The constant that holds the weights of product `op`, also behind a dequantize, or None."""
    value = op.operands[1]
    if (dequantize := producer(value, "qcc.dequantize")) is not None:
        value = dequantize.operands[0]
    return producer(value, "qcc.constant")
