"""Constant payloads: numpy in, numpy out, never text.

`DenseResourceElementsAttr` cannot be read back through the Python bindings, so the arrays behind resource keys are kept here,
per MLIR context and for as long as the context lives. A module that was parsed from text brings its blobs along
(`read_resources`, which `mlir.parse_module` calls).

A `dense_resource` must not be parsed from text that was printed in the same context: MLIR gives it a new key without contents.
"""

from __future__ import annotations

import itertools
import math
import re
import weakref
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir

BLOCK = 256  # rows and columns of a matrix that lie in a cache together
INLINE_ELEMENTS = 64  # constants up to this size are printed as `dense<...>`, which keeps small tests readable

_arrays: weakref.WeakKeyDictionary[Any, dict[str, np.ndarray]] = weakref.WeakKeyDictionary()
_counter = itertools.count()

_FLOATS: dict[str, Any] = {
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f8E4M3FN": ml_dtypes.float8_e4m3fn,
    "f8E5M2": ml_dtypes.float8_e5m2,
    "f6E2M3FN": ml_dtypes.float6_e2m3fn,
    "f6E3M2FN": ml_dtypes.float6_e3m2fn,
    "f4E2M1FN": ml_dtypes.float4_e2m1fn,
    "f8E8M0FNU": ml_dtypes.float8_e8m0fnu,
}


def numpy_dtype(element: ir.Type) -> np.dtype[Any]:
    """numpy dtype that stores one element of builtin type `element` (integers round up to 8, 16, 32 or 64 bits)."""
    text = str(element)
    if text in _FLOATS:
        return np.dtype(_FLOATS[text])
    if text == "index":
        return np.dtype(np.int64)
    if match := re.fullmatch(r"(s|u)?i(\d+)", text):
        bits = int(match[2])
        if bits == 1:
            return np.dtype(np.bool_)
        container = next((c for c in (8, 16, 32, 64) if bits <= c), None)
        if container is not None:
            return np.dtype(f"{'u' if match[1] == 'u' else ''}int{container}")
    raise QccError(f"no numpy dtype stores an element of type {text}")


def element_type(dtype: np.dtype[Any]) -> ir.Type:
    """The builtin MLIR element type of a numpy dtype; unsigned integers stay unsigned (`ui8`)."""
    for text, known in _FLOATS.items():
        if dtype == np.dtype(known):
            return ir.Type.parse(text)
    if dtype == np.bool_:
        return ir.IntegerType.get_signless(1)
    if dtype.kind == "i":
        return ir.IntegerType.get_signless(dtype.itemsize * 8)
    if dtype.kind == "u":
        return ir.IntegerType.get_unsigned(dtype.itemsize * 8)
    raise QccError(f"numpy dtype {dtype} has no MLIR element type")


def is_elements(attribute: ir.Attribute) -> bool:
    """Whether `attribute` is one that `array_of` reads."""
    return isinstance(attribute, ir.DenseElementsAttr) or _is_resource(attribute)


def _is_resource(attribute: ir.Attribute) -> bool:
    """Whether this is a `dense_resource<...>`; read back from an operation, the bindings give it as a plain Attribute."""
    if type(attribute) is not ir.Attribute:
        return isinstance(attribute, ir.DenseResourceElementsAttr)
    try:
        ir.DenseResourceElementsAttr(attribute)
    except ValueError:
        return False
    return True


def constant_attribute(array: np.ndarray, name: str = "", element: ir.Type | None = None) -> ir.Attribute:
    """Elements attribute holding `array` (C order, not copied when contiguous); `name` makes the resource key readable.

    `element` is the element type where the one of `array.dtype` is not meant, such as the `si8` of torch literals.
    Needs a current MLIR context.
    """
    array = np.ascontiguousarray(array) if array.ndim else np.asarray(array)
    kind = ir.RankedTensorType.get(list(array.shape), element or element_type(array.dtype), loc=ir.Location.unknown())
    if array.size <= INLINE_ELEMENTS:
        return inline_attribute(array, element)
    key = f"{re.sub(r'[^A-Za-z0-9_.]', '_', name) or 'w'}_{next(_counter)}"
    array = array.view()
    array.flags.writeable = False
    attribute = ir.DenseResourceElementsAttr.get_from_buffer(array.view(_buffer_dtype(array.dtype)), key, kind, alignment=64)
    _arrays.setdefault(ir.Context.current, {})[_key_of(attribute)] = array
    return attribute


def inline_attribute(array: np.ndarray, element: ir.Type | None = None) -> ir.Attribute:
    """A `dense<...>` attribute of `array`, whatever its size; for constants and type parameters whose text people read."""
    array = np.ascontiguousarray(array) if array.ndim else np.asarray(array)
    kind = ir.RankedTensorType.get(list(array.shape), element or element_type(array.dtype), loc=ir.Location.unknown())
    plain = array.view(np.uint8) if array.dtype == np.bool_ else array.view(_buffer_dtype(array.dtype))
    return ir.DenseElementsAttr.get(plain, type=kind)


def transposed(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """`array` with its axes in another order, contiguous. Matrices go block by block: a plain copy misses the cache at every element."""
    moved = array.transpose(order)
    if array.ndim != 2 or moved.flags.c_contiguous:
        return np.ascontiguousarray(moved)
    made = np.empty(moved.shape, array.dtype)
    for row in range(0, moved.shape[0], BLOCK):
        for column in range(0, moved.shape[1], BLOCK):
            made[row : row + BLOCK, column : column + BLOCK] = moved[row : row + BLOCK, column : column + BLOCK]
    return made


def array_of(attribute: ir.Attribute) -> np.ndarray:
    """The elements of a `dense<...>` or `dense_resource<...>` attribute, read-only, in the attribute's shape."""
    kind = ir.RankedTensorType(attribute.type)
    dtype = numpy_dtype(kind.element_type)
    array = (_resource if _is_resource(attribute) else _dense)(attribute, kind, dtype)
    array.flags.writeable = False
    return array


def _resource(attribute: Any, kind: ir.RankedTensorType, dtype: np.dtype[Any]) -> np.ndarray:
    key = _key_of(attribute)
    held = _arrays.get(attribute.context, {})
    if key not in held:
        raise QccError(
            f"the contents of resource '{key}' are not in the module; "
            "expected a dialect_resources section at its end: print the module without eliding resources"
        )
    array = held[key]
    count = math.prod(kind.shape)
    if dtype == np.bool_ and array.nbytes != count and array.nbytes == -(-count // 8):  # one bit per element
        array = np.unpackbits(array.reshape(-1).view(np.uint8), count=count, bitorder="little")
    if array.nbytes != count * dtype.itemsize:
        raise QccError(f"resource '{key}' has {array.nbytes} bytes, expected {count * dtype.itemsize} for {kind}")
    return array.reshape(-1).view(dtype).reshape(kind.shape)


_RESOURCE = re.compile(r"""(?<![\w.$-])("(?:[^"\\]|\\.)*"|[\w.$-]+)\s*:\s*"0x([0-9A-Fa-f]*)\"""")


def read_resources(text: str, context: ir.Context) -> str:
    """Make the `dialect_resources` blobs of module text readable through `array_of` in `context`; returns the text to parse.

    It differs from `text` only where a key is taken by another module of the same context: then it has new keys. Raises QccError
    for a blob that is damaged.
    """
    start = text.rfind("{-#")
    if start < 0:
        return text
    held = _arrays.setdefault(context, {})
    renamed: dict[str, str] = {}
    found: dict[str, np.ndarray] = {}
    matches = list(_RESOURCE.finditer(text, start))
    keys = {_unquoted(match[1]) for match in matches}
    for match in matches:
        key = _unquoted(match[1])
        blob = bytes.fromhex(match[2]) if len(match[2]) % 2 == 0 else b""
        alignment = int.from_bytes(blob[:4], "little")
        if len(blob) < 4 or alignment & (alignment - 1):
            raise QccError(f"resource '{key}' is damaged: expected a 4-byte alignment that is a power of two before its data")
        if key in held:
            key = renamed[match[1]] = _unused_key(key, {*held, *found, *keys})
        found[key] = np.frombuffer(blob, dtype=np.uint8, offset=4)
    held.update(found)
    if not renamed:
        return text
    words = "|".join(re.escape(key) for key in renamed)
    body = re.sub(rf"(?<=dense_resource<)({words})(?=>)", lambda m: renamed[m[1]], text[:start])
    return body + re.sub(rf"(?<![\w.$-])({words})(?=\s*:\s*\"0x)", lambda m: renamed[m[1]], text[start:])


def _unused_key(key: str, used: set[str]) -> str:
    """`key` as a bare word with a number that no key of `used` has."""
    word = re.sub(r"[^A-Za-z0-9_.]", "_", key)
    return next(candidate for number in _counter if (candidate := f"{word}_{number}") not in used)


def _key_of(attribute: ir.Attribute) -> str:
    match = re.match(r"""dense_resource<("(?:[^"\\]|\\.)*"|[^>]+)>""", str(attribute))
    assert match, attribute
    return _unquoted(match[1])


def _unquoted(key: str) -> str:
    """A resource key as a name: MLIR quotes keys that are no bare words and writes bytes in them as two hex digits."""
    if not key.startswith('"'):
        return key
    named = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
    return re.sub(r'\\([0-9A-Fa-f]{2}|[nt"\\])', lambda m: named.get(m[1]) or chr(int(m[1], 16)), key[1:-1])


def _buffer_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype of the same size that the buffer protocol can describe."""
    return (
        dtype
        if dtype.kind in "iufb" and dtype.itemsize in (1, 2, 4, 8) and dtype.type.__module__ == "numpy"
        else np.dtype(f"uint{dtype.itemsize * 8}")
    )


def _dense(attribute: Any, kind: ir.RankedTensorType, dtype: np.dtype[Any]) -> np.ndarray:
    shape = list(kind.shape)
    if attribute.is_splat:
        value: Any = attribute.get_splat_value()
        return np.full(shape, value.value, dtype=dtype)
    try:
        return np.array(attribute, dtype=dtype).reshape(shape)
    except (TypeError, ValueError):  # the buffer protocol has no format for bf16, fp8 and sub-byte integers, their text has
        return _from_text(str(attribute), dtype).reshape(shape)


def _from_text(text: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Elements of a printed `dense<...>`: numbers, bit patterns such as `0x7FC0` (infinities and NaN), or one string of bytes."""
    body = text[len("dense<") :].partition(">")[0]
    if body.startswith('"0x'):
        return np.frombuffer(bytes.fromhex(body.strip('"')[2:]), dtype=dtype).copy()
    words = re.findall(r"[^\s,\[\]]+", body)
    bits = np.dtype(f"uint{dtype.itemsize * 8}")
    values = [np.array(int(w, 16), bits).view(dtype) if w.startswith("0x") else np.array(float(w)).astype(dtype) for w in words]
    return np.array(values, dtype=dtype)
