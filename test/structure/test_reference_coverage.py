"""Whatever the dialects can say has a meaning in the reference."""

from __future__ import annotations

import inspect

from qcc.dialects import compressed_types, encodings
from qcc.dialects.qcc import REDUCE_KINDS, UNARY_KINDS
from qcc.dialects.qcc_choice import COMPARISONS
from qcc.dialects.qcc_state import Qcc
from qcc.runtime.reference import codecs, float_ops, formats, interpreter, storage
from qcc.runtime.reference import qcc as meaning

KEPT = {"qcc.read_state", "qcc.write_state"}  # the interpreter's own: they have no meaning in one run alone
OPERATIONS = {f"qcc.{cls._op_name}" for cls in Qcc.operations} - KEPT


def test_every_operation_has_a_documented_function_and_a_handler() -> None:
    for name in OPERATIONS:
        short = name.removeprefix("qcc.")
        function = getattr(meaning, short, None) or getattr(meaning, f"{short}_", None)
        assert inspect.isfunction(function) and function.__doc__, f"runtime/reference/qcc.py has no function for {name}"
        assert name in interpreter.HANDLERS, f"the interpreter does not run {name}"


def test_every_handler_is_an_operation() -> None:
    upstream = {"arith.constant", "tensor.concat"}
    assert set(interpreter.HANDLERS) == OPERATIONS | upstream


def test_every_kind_of_function_has_a_meaning() -> None:
    assert set(float_ops.UNARY) == set(UNARY_KINDS)
    source = inspect.getsource(meaning.reduce)
    assert all(f'"{kind}"' in source for kind in REDUCE_KINDS if kind != "sum")
    assert all(f'"{kind}"' in inspect.getsource(meaning.compare) for kind in COMPARISONS)


def test_every_element_type_has_a_description_and_formats() -> None:
    types = {cls.__name__.removesuffix("Type") for cls in Qcc.types}
    descriptions = {cls.__name__ for cls in compressed_types.Description.__args__}
    assert types == descriptions
    for function in (formats.decode, formats.encode, compressed_types.make_type):
        missing = [name for name in descriptions if f"{name}(" not in inspect.getsource(function)]
        assert not missing, f"{function.__name__} does not know {missing}"


def test_every_encoding_packs_and_unpacks() -> None:
    assert set(encodings.KINDS) == set(storage.PACK) == set(storage.UNPACK)
    assert set(encodings.CODECS) == {"raw", *codecs.MODES}
