"""The qtile dialect: buffers and moves of the tiled form.

A codelet is a private `func.func` whose `qtile.codelet` attribute states what to generate; running it is a `func.call` on buffers with the
number of independent tasks in `qtile.tasks`.
"""

from qcc.dialects.mlir import ext
from qcc.dialects.operation import base_of, elements, integer, one_of, text


class Qtile(ext.Dialect, name="qtile"):
    """Where every byte lies and which codelet touches it."""


Base = base_of(Qtile)


class Buffer(
    Base,
    name="buffer",
    operands=(),
    attributes={
        "space": one_of("input", "output", "arena", "weights", "scratch"),
        "offset_bytes": integer(0),
        "size_bytes?": integer(0),
        "index?": integer(0),
        "name?": text(),
        "value?": elements(),
    },
    pure=False,
):
    """A place in memory as a strided memref. `offset_bytes` counts from the start of its space, `size_bytes` is the whole allocation;
    `index` numbers inputs and outputs, `value` holds the bytes of a weight."""
