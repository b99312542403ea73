"""Encodings of constant tensors: which elements are stored, how they are found, and how the bytes are coded.

`#qcc.sparse<kind, parameters, codec>` stands in a tensor type's encoding, for example
`tensor<64x512x!quant.uniform<i4:f32, 0.5>, #qcc.sparse<"n:m", {n = 2 : i64, m = 4 : i64, axis = 1 : i64}, "raw">>`. The payload of a
constant is always the dense tensor of stored elements; what an encoding keeps of it is in `runtime/reference/storage.py`. *Zero* means
the stored element of real value 0 (the zero point); matrix forms see the tensor as [first axis, all others].
"""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qcc.dialects.mlir import ir, python_value, to_attribute
from qcc.dialects.operation import Invalid
from qcc.dialects.qcc import Qcc


class SparseAttr(Qcc.Attribute, name="sparse"):
    """Kind, parameters and codec of the streams."""

    kind: Any
    parameters: Any
    codec: Any


# kind -> the parameters it must have, with their meaning
KINDS: dict[str, dict[str, str]] = {
    "dense": {},  # every element; for tensors that are only coded
    "channel": {"axis": "indices of this axis whose elements are all zero are removed"},
    "block": {"shape": "[b0, b1] of the blocks of the matrix; blocks with any non-zero are kept, edges are filled up with zeros"},
    "n:m": {"n": "elements kept of", "m": "neighbours along", "axis": "this axis"},
    "pattern": {},  # [o, i, kh, kw]: each kernel names one of up to 256 patterns of kept taps
    "bitmap": {},  # one bit per element, then the non-zeros
    "csr": {"index_bits": "width of a column index", "relative": "gaps to the previous non-zero; fillers of zero where a gap does not fit"},
    "csc": {"index_bits": "width of a row index", "relative": "as csr"},
    "run-length": {"run_bits": "width of the count of zeros before an element; fillers of zero where a run does not fit"},
    "shift": {},  # [c, 1, kh, kw]: the one non-zero tap per channel (shift layers)
}

CODECS = ("raw", "huffman", "rans")


@dataclass(frozen=True)
class Encoding:
    """What `#qcc.sparse<kind, parameters, codec>` says."""

    kind: str = "dense"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    codec: str = "raw"


def encoding_of(kind: ir.RankedTensorType) -> Encoding:
    """The encoding of a tensor type, dense and raw where it has none. Raises Invalid for one that is not `#qcc.sparse`."""
    found: Any = kind.encoding
    if found is None:
        return Encoding()
    if not isinstance(found, SparseAttr):
        raise Invalid(f"tensor has encoding {found}, expected #qcc.sparse<kind, parameters, codec>")
    name, parameters, codec = (python_value(v.maybe_downcast()) for v in (found.kind, found.parameters, found.codec))
    if not isinstance(name, str) or not isinstance(parameters, dict) or not isinstance(codec, str):
        raise Invalid(f'tensor has encoding {found}, expected #qcc.sparse<"kind", {{parameters}}, "codec">')
    return Encoding(name, parameters, codec)


def make_encoding(encoding: Encoding) -> ir.Attribute:
    """The `#qcc.sparse` attribute of `encoding`. Needs a current context."""
    return SparseAttr.get(*(to_attribute(v) for v in (encoding.kind, dict(encoding.parameters), encoding.codec)))


def verify(encoding: Encoding, shape: Sequence[int]) -> None:
    """Raise Invalid where `encoding` is unknown, its parameters are missing or out of range, or a tensor of `shape` cannot have it."""
    kind, given = encoding.kind, encoding.parameters
    if kind not in KINDS:
        raise Invalid(f"sparse kind is '{kind}', expected one of: {', '.join(KINDS)}")
    if set(given) != set(KINDS[kind]):
        raise Invalid(f"sparse kind '{kind}' has parameters {sorted(given)}, expected {sorted(KINDS[kind])}")
    if encoding.codec not in CODECS:
        raise Invalid(f"codec is '{encoding.codec}', expected one of: {', '.join(CODECS)}")
    if not shape:
        raise Invalid(f"sparse kind '{kind}' on a tensor without axes, expected at least one")
    if "axis" in given:
        _expect_range(kind, "axis", given["axis"], 0, len(shape) - 1)
    match kind:
        case "block":
            sizes = given["shape"]
            if not (isinstance(sizes, list) and len(sizes) == 2 and all(isinstance(b, int) and 1 <= b <= 256 for b in sizes)):
                raise Invalid(f"sparse kind 'block' has shape {sizes}, expected two sizes from 1 to 256")
        case "n:m":
            _expect_range(kind, "m", given["m"], 2, 256)
            _expect_range(kind, "n", given["n"], 1, given["m"] - 1)
        case "csr" | "csc":
            _expect_range(kind, "index_bits", given["index_bits"], 1, 32)
            if not isinstance(given["relative"], bool):
                raise Invalid(f"sparse kind '{kind}' has relative {given['relative']}, expected true or false")
            rest = 1
            for size in shape[1:]:
                rest *= size
            indices = rest if kind == "csr" else shape[0]
            if not given["relative"] and indices > 1 << given["index_bits"]:
                raise Invalid(
                    f"sparse kind '{kind}' has {given['index_bits']} index bits for {indices} indices, expected "
                    f"{(indices - 1).bit_length()} or relative = true"
                )
        case "run-length":
            _expect_range(kind, "run_bits", given["run_bits"], 1, 16)
        case "pattern":
            if len(shape) != 4 or shape[2] * shape[3] > 64:
                raise Invalid(f"sparse kind 'pattern' on shape {list(shape)}, expected [o, i, kh, kw] with at most 64 taps")
        case "shift":
            if len(shape) != 4 or shape[1] != 1 or shape[2] * shape[3] > 256:
                raise Invalid(f"sparse kind 'shift' on shape {list(shape)}, expected [c, 1, kh, kw] with at most 256 taps")
        case _:
            pass


def _expect_range(kind: str, name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Invalid(f"sparse kind '{kind}' has {name} = {value}, expected {low} to {high}")
