"""THE list of passes per target, each with its reason. Nothing else in qcc decides what runs when."""

from __future__ import annotations

from qcc.passes.base import Stage

# torch dialect (backend contract) or linalg-on-tensors -> graph form
IMPORT: tuple[Stage, ...] = ()

# graph form -> integer form
INTEGER: tuple[Stage, ...] = ()

# integer form -> tiled form
TILE: tuple[Stage, ...] = ()

# tiled form -> llvm dialect (CPU)
LLVM: tuple[Stage, ...] = ()

# integer form -> accelerator instruction stream
ISA: tuple[Stage, ...] = ()
