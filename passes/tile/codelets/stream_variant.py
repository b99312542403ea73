"""A way to compute a weight-only linear layer, and the configuration of the codelet that does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcc.dialects.codelet import Operand, Stream
from qcc.dialects.element_types import are_bfloat16
from qcc.passes.tile.codelets.weight_codes import Codes


@dataclass(frozen=True)
class Variant:
    """How a codelet decodes and computes, with codes, scales and zeros as it wants them."""

    compute: str
    decoder: str
    vectors: int
    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    zeros_kind: str
    zero: int
    table: np.ndarray | None = None
    bits: int = 0  # of values, where they are not the codes'
    fill: int = 0
    kept: int = 0
    span: int = 0


def _scale_element(variant: Variant) -> str:
    """The shortest that holds scales per group exactly: one byte for powers of two."""
    bits = np.ascontiguousarray(variant.scales).view(np.uint32)
    if variant.scales.shape[1] == 1 or variant.zeros_kind == "channel":
        return "f32"
    if not (bits & 0x807FFFFF).any():
        return "e8m0"
    return "bf16" if are_bfloat16(variant.scales) else "f32"


def configuration(isa: str, codes: Codes, variant: Variant, rows: int) -> Stream:
    """The codelet of `variant` for `rows` rows of x, one block a task, its operands left open."""
    return Stream(
        isa=isa,
        compute=variant.compute,
        decoder=variant.decoder,
        bits=variant.bits or codes.bits,
        sizes=(rows, codes.codes.shape[0], codes.codes.shape[1]),
        group=codes.group,
        vectors=variant.vectors,
        chunk=1,
        x=Operand(0, "f32", (0, 1)),
        w=Operand(1, "u8", (1,)),
        operands=(),
        steps=(),
        y=Operand(0, "f32", ()),
        scale=_scale_element(variant),
        zeros=variant.zeros_kind,
        zero=variant.zero,
        fill=variant.fill,
        kept=variant.kept,
        span=variant.span,
        level_digits=variant.table.shape[0] if variant.table is not None and variant.decoder == "shuffle" else 0,
        step=codes.step if variant.decoder in ("planes", "sums") else 1,
        mantissa=codes.small_float[1] if codes.small_float is not None and variant.decoder == "half" else 0,
    )
