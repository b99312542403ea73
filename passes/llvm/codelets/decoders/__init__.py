"""Decoders: how stored weight codes become compute operands in registers, one module per family, named as in the codelet's `decoder`.

A module has `Decoder(b, codelet, buffers, instructions)`, made once per codelet, with

* `depth`: how many k one step of a vector covers, `step_bytes`: its stored bytes;
* `open(address)`: loads one step of one vector of channels;
* `real(step, j)`: f32 lanes with the level of the j-th k of that step.

Decoders for signed-byte products are `digits`: see there.
"""

from __future__ import annotations

import importlib
from typing import Any


def decoder(name: str) -> Any:
    """The module of decoder family `name`."""
    return importlib.import_module(f"qcc.passes.llvm.codelets.decoders.{name}")
