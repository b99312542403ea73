"""The qtile dialect: buffers and moves of the tiled form.

A codelet is a private `func.func` whose `qtile.codelet` attribute states what to generate; running it is a `func.call` on buffers with the
number of independent tasks in `qtile.tasks` and, where operands begin behind the starts of their buffers, `qtile.offset_bytes`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from qcc.dialects.mlir import ext, op_attribute
from qcc.dialects.operation import anything, base_of, elements, integer, one_of, symbol, text


class Qtile(ext.Dialect, name="qtile"):
    """Where every byte lies and which codelet touches it."""


Base = base_of(Qtile)


class Buffer(
    Base,
    name="buffer",
    operands=(),
    attributes={
        "space": one_of("input", "output", "state", "arena", "weights", "scratch"),
        "offset_bytes": integer(0),
        "size_bytes?": integer(0),
        "index?": integer(0),
        "name?": text(),
        "value?": elements(),
        "recipe?": anything(),
    },
    pure=False,
):
    """A place in memory as a strided memref. `offset_bytes` counts from the start of its space, `size_bytes` is the whole allocation;
    `index` numbers inputs, outputs and states, `value` holds the bytes of a weight, or what a state
    holds at first, `recipe` how weights are made of fewer (`dialects/weight_recipes.py`)."""


class ForEachSlice(Base, name="for_each_slice", operands=("x",), attributes={"callee": symbol(), "count": integer(2)}):
    """y = the results of private function `callee` on `count` equal slices of x along its first dimension, one after the other.

    Until codelets are chosen; the calls that then stand for it carry `qtile.group`, `qtile.slices` (the count) and `qtile.slice_bytes`,
    by how much each operand advances from slice to slice. All calls of a group are made for one slice, then for the next."""


class MatmulTiles(
    Base,
    name="matmul_tiles",
    operands=("source", "weights", "destination", "residual?"),
    results=0,
    attributes={
        "window": anything(),
        "layout": anything(),
        "format": anything(),
        "post": anything(),
        "sum?": anything(),
        "chunks": anything(),
        "parameters_word": integer(0),
        "padding_word": integer(0),
    },
    pure=False,
):
    """A layer of the accelerator as a nest of tiles over operands in DRAM.

    `window` gathers `source` (`layout`: words of its pixels and the destination's), `weights` holds coded weight blocks, parameters at
    `parameters_word` and the run for taps outside the image at `padding_word`; `format` has the bit-planes, `post` the requantization,
    `sum` the addition of `residual`; `chunks` says how it is cut (passes/tile/_accelerator/tiling.py)."""


def groups(calls: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """(slices, calls): neighbouring calls of one `qtile.group`, and the others one by one with a single slice."""
    begin = 0
    while begin < len(calls):
        end, group = begin + 1, op_attribute(calls[begin], "qtile.group")
        while group is not None and end < len(calls) and op_attribute(calls[end], "qtile.group") == group:
            end += 1
        yield op_attribute(calls[begin], "qtile.slices", 1), calls[begin:end]
        begin = end


def runs(calls: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """(call, slice) in the order in which they run."""
    for slices, group in groups(calls):
        for i in range(slices):
            for call in group:
                yield call, i
