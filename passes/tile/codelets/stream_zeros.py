"""Ways to compute a weight-only linear layer without storing its zeros, and what they store."""

from __future__ import annotations

import math

import numpy as np

from qcc.dialects import codelet_cost
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.stream_layout import DIGITS, MOST_IN_PLACE_ROWS, MOST_RELATIVE, MOST_SUMS, QUAD, STREAM_WINDOW, bytes_codes
from qcc.passes.tile.codelets.stream_variant import Variant, configuration
from qcc.passes.tile.codelets.weight_codes import Codes

KIND_OF = {"quads": "n:m", "bitmap": "bitmap", "indexed": "csr", "relative": "csr"}
"""Of decoders: the kind of encoding that says so in the type of the weights."""
KINDS = ("n:m", "bitmap", "csr")
WORDS = {"bitmap": "bitmap + expand", "csr": "compressed rows", "n:m": "n:m"}
SAMPLE_ROWS = 16  # of weights that are looked at first
MOST_COLUMNS = 65535
INDEXED_FILLED = 0.75  # of the places of a step, typically
RELATIVE_FILLED = 0.94  # likewise, where all of them are stored
SPARSE_SAVING = 0.9  # of the dense bytes, from which on a bitmap pays for its slower decoding


def variant(kind: str, isa: str, c: Codes, compute: str, rows: int, needed: int, *, byte_expand: bool) -> Variant | None:
    """The way to compute `c` from what encoding `kind` keeps of it for `rows` rows of x, in blocks of at most `needed` vectors of channels;
    None where there is none, or it takes about as many bytes as dense weights. A kind without codelets is read as the first with one."""
    tile, permutes = min(rows, 8), compute == "int16" and ISAS[isa].byte_lanes
    ways = {
        "n:m": lambda: _quads(c, compute, tile, needed) if permutes else None,
        "bitmap": lambda: _bitmap(c, compute, tile, needed) if byte_expand else None,
        "csr": lambda: _faster_columns(isa, c, compute, rows) if permutes and byte_expand else None,
    }
    found = (ways[known]() for known in ([kind] if kind in ways else KINDS))
    return next((variant for variant in found if variant is not None), None)


def _quads(c: Codes, compute: str, rows: int, needed: int) -> Variant | None:
    """At most 1 or 2 values in every 4 k with two bits each, where that takes less than the dense bytes."""
    zero, (_, k) = int(c.zeros.flat[0]), c.codes.shape
    if c.step != 1 or not (c.zeros == zero).all() or (c.group % STREAM_WINDOW and c.group != k):
        return None
    if _most_of_quad(c.codes[:SAMPLE_ROWS] != zero) > 2:  # as of most weights
        return None
    kept = max(1, _most_of_quad(c.codes != zero))
    values = c.codes.astype(np.int16) - zero
    if not -128 <= values.min() <= values.max() <= 127:
        return None
    bits = 4 if -8 <= values.min() and values.max() <= 7 else 8
    if kept > 2 or (bits + 2) * kept > SPARSE_SAVING * c.bits * QUAD:
        return None
    factor = 16 if bits == 4 else 1
    sums = np.add.reduceat(values, np.arange(0, k, c.group), axis=1, dtype=np.int32) * factor  # [n, groups]
    vectors = min(needed, next(v for v in (4, 2, 1) if DIGITS[compute] * rows * v <= MOST_SUMS[32]))
    stored, scales = values.astype(np.int8).view(np.uint8), c.scales / np.float32(factor)
    return Variant(compute, "quads", vectors, stored, scales, sums, "channel", 0, bits=bits, kept=kept)


def _most_of_quad(present: np.ndarray) -> int:
    """The greatest number of ones [n, k] in 4 neighbours, the first of which are k = 0."""
    n, k = present.shape
    padded = np.zeros((n, -(-k // QUAD) * QUAD), bool)
    padded[:, :k] = present
    return int(padded.reshape(-1, QUAD).sum(axis=1).max())


def _bitmap(c: Codes, compute: str, rows: int, needed: int) -> Variant | None:
    """A bit per byte of codes and the bytes that are not zero, where that takes at most `SPARSE_SAVING` of the dense bytes."""
    zero = int(c.zeros.flat[0])
    bits = 4 if c.bits <= 4 else 8
    k, in_byte = c.codes.shape[1], bytes_codes(bits)
    if c.step != 1 or not 0 <= zero < 1 << bits or not (c.zeros == zero).all() or (c.group % (4 * in_byte) and c.group != k):
        return None
    present = (c.codes != zero).view(np.uint8)
    density = float(present.mean())
    stored = 1 - (1 - density) ** in_byte  # of the bytes, where zeros lie without a pattern
    sums = DIGITS[compute] * rows * (in_byte if rows <= MOST_IN_PLACE_ROWS else 1)
    zeros_kind = "constant" if zero else "none"
    vectors = min(needed, max(1, MOST_SUMS[32] // sums // 2), 4)
    zeros, fill = c.zeros.astype(np.int32), math.ceil(64 * stored)
    variant = Variant(compute, "bitmap", vectors, present, c.scales, zeros, zeros_kind, zero, bits=bits, fill=fill)
    return variant if bits_per_weight(variant, density) <= SPARSE_SAVING * c.bits else None


def _faster_columns(isa: str, c: Codes, compute: str, rows: int) -> Variant | None:
    """The values that are not zero and where their columns are, in the way that is predicted to be faster, from a cache as from memory."""
    found = [variant for decoder in ("indexed", "relative") if (variant := _columns(c, compute, decoder)) is not None]
    density, machine = float((c.codes != c.zeros.flat[0]).mean()), shipped(isa)

    def microseconds(variant: Variant) -> float:
        codelet = configuration(isa, c, variant, rows)
        cost = codelet_cost.cost(codelet, machine, stored_bytes=weight_bytes(c, variant, density))
        assert cost is not None, f"no model of {codelet.kind}"
        return cost.microseconds

    return min(found, key=microseconds, default=None)


def weight_bytes(c: Codes, variant: Variant, density: float) -> int:
    """Of all weights of `c`, without headers."""
    return int(c.codes.size * bits_per_weight(variant, density) / 8)


def bits_per_weight(variant: Variant, density: float) -> float:
    """What is stored without zeros of `density` values that are not zero and lie anywhere, without headers."""
    match variant.decoder:
        case "indexed":
            return density * (variant.bits + 8) / INDEXED_FILLED
        case "relative":
            far = (1 - density) ** MOST_RELATIVE  # the share of values with at least one step of that many columns in front
            between = far / (1 - far) if density else 0.0
            return density * (1 + between) * (variant.bits + 4) / RELATIVE_FILLED
        case "quads":
            return variant.kept * (variant.bits + 2) / QUAD
        case _:
            in_byte = bytes_codes(variant.bits)
            return (1 + 8 * (1 - (1 - density) ** in_byte)) / in_byte


def _columns(c: Codes, compute: str, decoder: str) -> Variant | None:
    """The values that are not zero and where their columns are, where there are so few that it takes less than the dense bytes."""
    zero, (_, k) = int(c.zeros.flat[0]), c.codes.shape
    if c.step != 1 or not (c.zeros == zero).all() or c.group != k or k > MOST_COLUMNS:
        return None
    values = c.codes.astype(np.int16) - zero
    bits = 4 if -8 <= values.min() and values.max() <= 7 else 8
    if not -128 <= values.min() <= values.max() <= 127:
        return None
    fill = round(2 * 64 * INDEXED_FILLED * (1 + bits / 8)) if decoder == "indexed" else 0
    stored, scales, kind = values.astype(np.int8), c.scales / np.float32(16 if bits == 4 else 1), np.zeros(1, np.int32)
    variant = Variant(compute, decoder, 1, stored, scales, kind, "none", 0, bits=bits, fill=fill)
    return variant if bits_per_weight(variant, float((values != 0).mean())) <= SPARSE_SAVING * c.bits else None
