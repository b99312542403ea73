"""Choose for every constant weight the storage form that is predicted to be fastest, and state it in the encoding of its type.

Before:

    %w = qcc.constant : tensor<64x64xf32>                     // 9 of 10 are 0
    %y = qcc.linear %x, %w

After:

    %w = qcc.constant : tensor<64x64xf32, #qcc.sparse<"csr", {index_bits = 16, relative = false}, "raw">>

Recorded for every weight of a convolution or linear layer are the bytes of all forms that can hold its zeros, exactly as
`runtime/reference/storage.py` stores them: removed channels, blocks, n:m along the input channels, kernel patterns, bitmap, compressed rows
and run-length. Where the instruction set has codelets for some, the time of each is predicted (`_storage_times.py`), and the fastest is
chosen; with `optimize=size` the one of the fewest bytes. Quantized weights that many rows of a real x multiply may become real values
without zeros. The pixels of a 1x1 convolution are such rows. A form that would be slower is not used, and the reason says by how much, and
from which share of zeros on it would pay. `storage` asks for one form wherever there is a codelet for it. Whether integer products leave
zeros out is decided with their codelets (`integer_stream.py`, `sparse_pixels.py`).

Requires: integer form. The zero of a quantized weight is its zero point.
Guarantees: values unchanged, the payload stays dense; an encoding that is not dense is one that `lower-to-codelets` computes with for the
same instruction set. Facts per layer: density, nonzeros, storage_bytes (of each candidate), storage, storage_reason, and where there was a
choice storage_times_us and storage_break_even (share of zeros) of each form with a codelet.
Why: Han et al., "Learning both weights and connections ...", NIPS 2015; a sparse form costs its index, so it must be weighed against dense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import compressed_types, element_types, encodings, weights
from qcc.dialects.encodings import Encoding
from qcc.dialects.errors import QccError
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import create, ir, layer_name, replace_op, walk
from qcc.dialects.real_values import decode
from qcc.passes.base import Pass, PassContext
from qcc.passes.integer._storage_bytes import Mask, candidates, label
from qcc.passes.integer._storage_times import Form, Target, break_even, forms, sentence
from qcc.passes.tile.codelets import sparse, stream_zeros
from qcc.passes.values import attributes_of, constant_array, producer, shape_of, users

_PRODUCTS = ("qcc.conv2d", "qcc.linear")
_REGULAR = ("channel", "block", "n:m", "pattern")
LEAST_GAIN = 1.05  # of a form over dense: less is within the error of the prediction
MOST_DENSITY = 0.95  # above it no form is worth predicting
_FULL_GROUPS = 1.1  # n / m over what is kept: zeros in no order leave many groups with fewer than n
STORAGE = ("auto", "dense", "bitmap", "csr", "block")


@dataclass(frozen=True)
class Options:
    """`isa`, `activations`, `byte_expand`: as for lower-to-codelets, no instruction set meaning no codelets; `optimize`: time or size;
    `storage`: auto, or the form to use wherever it can be."""

    isa: str = ""
    activations: str = "auto"
    byte_expand: bool = False
    optimize: str = "time"
    storage: str = "auto"


class SelectSparseFormatPass(Pass):
    """See the module's docstring."""

    name = "select-sparse-format"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Decide for every weight of a convolution or linear layer."""
        o = self.options
        if o.isa and o.isa not in ISAS:
            raise QccError(f"no codelets for instruction set '{o.isa}', expected one of: {', '.join(ISAS)}")
        if o.storage not in STORAGE:
            raise QccError(f"storage is '{o.storage}', expected one of: {', '.join(STORAGE)}")
        total = sum(_bytes_of(constant) for constant in walk(module, "qcc.constant"))
        target = Target(o.isa, o.activations, o.byte_expand, total) if o.isa else None
        for op in walk(module):
            if op.name in _PRODUCTS and (constant := _weight(op)) is not None:
                self.select(op, constant, target, context)

    def select(self, op: Any, constant: Any, target: Target | None, context: PassContext) -> None:
        kind = ir.RankedTensorType(constant.results[0].type)
        array = constant_array(constant.results[0])
        kept = None if array is None else nonzero(array, kind)
        if kept is None or kept.ndim < 2 or kind.encoding is not None:
            return
        count = int(np.count_nonzero(kept))
        density = count / kept.size
        sizes = candidates(kept, count, element_types.bits_of(kind))
        able = forms(op, target) if target is not None and density < MOST_DENSITY and _read_as_weights(constant) else []
        facts: dict[str, Any] = {"density": density, "nonzeros": count, "storage_bytes": {label(e): n for e, n in sizes}}
        best, real = Encoding(), False
        if len(able) > 1:
            form, reason, more = self.choose(able, density, _pattern(sizes, density))
            best, real = form.encoding, form.real
            facts |= more
        else:
            reason = _without_choice(op, sizes, target is not None and density < MOST_DENSITY)
        context.fact(layer_name(op.location), **facts, storage=label(best), storage_reason=reason)
        if best.kind == "dense":
            return
        changed = ir.RankedTensorType.get(list(kind.shape), ir.F32Type.get() if real else kind.element_type, encodings.make_encoding(best))
        at, attributes = ir.InsertionPoint(constant), attributes_of(constant)
        if real and array is not None:
            attributes["value"] = weights.constant_attribute(decode(array, kind), layer_name(constant.location) or "real")
        made = create("qcc.constant", [], [changed], attributes, loc=constant.location, ip=at).results
        if real:
            op.operands[1] = made[0]
        else:
            replace_op(constant, made)

    def choose(self, able: list[Form], density: float, pattern: str) -> tuple[Form, str, dict[str, Any]]:
        """The form to use, why in words, and the figures."""
        times = {form.encoding.kind: form.microseconds(density) for form in able}
        even = {form.encoding.kind: break_even(form, able[0]) for form in able[1:]}
        names = {form.encoding.kind: label(form.encoding) for form in able if form.encoding.kind == "n:m"}
        words = sentence(1 - density, pattern, times, even, stream_zeros.WORDS | names)
        o = self.options
        if o.storage != "auto":
            best = next((form for form in able if form.encoding.kind == o.storage), able[0])
            words += f"; {o.storage} asked for" + ("" if best.encoding.kind == o.storage else ", which has no codelet here")
        elif o.optimize == "size":
            best = min((form for form in able if not form.real), key=lambda form: form.stored_bytes(density))
            words += f"; {label(best.encoding)} takes the fewest bytes, {best.stored_bytes(density)} of {able[0].stored_bytes(density)}"
        else:
            best = min(able, key=lambda form: form.microseconds(density))
            if times[best.encoding.kind] * LEAST_GAIN > times["dense"]:
                best = able[0]
            if best is able[0]:
                words += "; kept dense, which is fastest"
        rounded = {kind: round(us, 2) for kind, us in times.items()}
        return best, words, {"storage_times_us": rounded, "storage_break_even": even}


def nonzero(array: np.ndarray, kind: ir.RankedTensorType) -> Mask | None:
    """Where stored elements do not mean 0; None for types without a zero of their own."""
    if (affine := element_types.affine(kind)) is not None:
        return array != affine.expand(affine.zero_points, array.shape)
    described = compressed_types.describe(kind)
    if isinstance(kind.element_type, ir.FloatType) or isinstance(described, compressed_types.Ternary | compressed_types.Log2):
        return array != 0
    return None


def _pattern(sizes: list[tuple[Encoding, int]], density: float) -> str:
    """What the zeros look like: n:m where nearly every group has its n, else the form of the fewest bytes where it is a regular one."""
    for encoding, _ in sizes:
        if encoding.kind == "n:m" and encoding.parameters["n"] / encoding.parameters["m"] < _FULL_GROUPS * density:
            return label(encoding)
    smallest = min(sizes, key=lambda item: item[1])[0]
    return label(smallest) if smallest.kind in _REGULAR else "unstructured"


def _without_choice(op: Any, sizes: list[tuple[Encoding, int]], has_codelets: bool) -> str:
    """Why a weight stays dense for which there is no other codelet."""
    (_, dense_bytes), (best, best_bytes) = sizes[0], min(sizes, key=lambda item: item[1])
    if best.kind == "dense":
        return f"no sparse form takes fewer than the dense {dense_bytes} bytes"
    would = f"{label(best)} would take {best_bytes} of {dense_bytes} bytes"
    if not has_codelets:
        return would
    if op.name == "qcc.conv2d":
        return f"{would}, but no codelet for such a convolution leaves out zeros"
    rows = math.prod(shape_of(op.operands[0])[:-1])
    return f"{would}, but no codelet for {rows} {'row' if rows == 1 else 'rows'} of such x leaves out zeros"


def _read_as_weights(constant: Any) -> bool:
    """Whether all readers, through dequantize, are linear layers or 1x1 convolutions that multiply with it: the encoding is theirs to
    understand."""
    readers = [(user, constant.results[0]) for user in users(constant.results[0])]
    for user, _ in list(readers):
        if user.name == "qcc.dequantize":
            readers += [(reader, user.results[0]) for reader in users(user.results[0])]
    products = ("qcc.linear", "qcc.conv2d")
    if any(u.name == "qcc.conv2d" and not sparse.is_pointwise(u) for u, _ in readers):
        return False
    return all(u.name == "qcc.dequantize" or (u.name in products and list(u.operands).index(v) == 1) for u, v in readers)


def _bytes_of(constant: Any) -> int:
    value = constant.attributes["value"]
    kind = ir.RankedTensorType(value.type)
    return int(np.prod(kind.shape, dtype=np.int64)) * weights.numpy_dtype(kind.element_type).itemsize


def _weight(op: Any) -> Any:
    """The constant that holds the weights of product `op`, also behind a dequantize, or None."""
    value = op.operands[1]
    if (dequantize := producer(value, "qcc.dequantize")) is not None:
        value = dequantize.operands[0]
    return producer(value, "qcc.constant")
