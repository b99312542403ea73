"""Set the register tiles that autotuning found fastest.

Before:
    func.func private @contraction_1f3c(...) attributes {qtile.codelet = {kind = "contraction", tile = [1, 14, 2], ...}}
After (retile-contractions{tiles=contraction_1f3c=2x7}):
    func.func private @contraction_1f3c(...) attributes {qtile.codelet = {kind = "contraction", tile = [2, 7, 2], ...}}

Requires: the tiled form. Guarantees: results do not change: rows and columns of the tile change, and neither its vectors, by which weights
are packed, nor the tasks. Names in `tiles` that the module does not have are left out: a cache serves many models.
Why: a model of cycles cannot tell tiles apart that differ by a few per cent (T. Chen et al., "Learning to Optimize Tensor Programs",
NeurIPS 2018, section 1); the compiler's `cost/autotune.py` measures them in place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from qcc.dialects import codelet
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, op_attribute, python_value, to_attribute, walk
from qcc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class RetileOptions:
    """`tiles`: NAME=ROWSxCOLUMNS;NAME=..."""

    tiles: str = ""


class RetileContractionsPass(Pass):
    name = "retile-contractions"
    Options = RetileOptions

    def run(self, module: ir.Module, context: PassContext) -> None:
        wanted = _read(self.options.tiles)
        for function in walk(module, "func.func") if wanted else ():
            name = python_value(function.attributes["sym_name"])
            held = op_attribute(function, "qtile.codelet")
            if name not in wanted or held is None or held.get("kind") != "contraction":
                continue
            configuration = codelet.from_config(held)
            rows, columns = wanted[name]
            _, _, height, width, _ = configuration.sizes
            whole_rows = configuration.chunks[1] % rows == 0 or configuration.chunks[1] >= height
            if rows > height or columns > width or not whole_rows or (rows > 1 and columns < width):
                raise QccError(
                    f"tile {rows}x{columns} does not fit '{name}' of {height}x{width} pixels; expected a tile that autotuning found"
                )
            tile = (rows, columns, configuration.tile[2])
            function.attributes["qtile.codelet"] = to_attribute(codelet.to_config(replace(configuration, tile=tile)))


def _read(text: str) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for item in filter(None, text.split(";")):
        if not (match := re.fullmatch(r"(\w+)=(\d+)x(\d+)", item)) or not int(match[2]) or not int(match[3]):
            raise QccError(f"tiles has '{item}', expected NAME=ROWSxCOLUMNS")
        found[match[1]] = (int(match[2]), int(match[3]))
    return found
