"""All weights of a module in the llvm form as one block of bytes, as `plan-memory` laid them out."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.mlir import ir, op_attribute

ALIGNMENT_BYTES = 64


def weights_blob(module: ir.Module) -> np.ndarray[Any, Any]:
    """`qcc.weights` at their offsets, zeros between: u8, its first byte aligned to 64 bytes; never empty, so that it has an address."""
    size = max(op_attribute(module.operation, "qcc.weights_bytes", 0), ALIGNMENT_BYTES)
    block = np.zeros(size + ALIGNMENT_BYTES, np.uint8)
    skip = -block.ctypes.data % ALIGNMENT_BYTES
    blob = block[skip : skip + size]
    for entry in module.operation.attributes["qcc.weights"]:
        offset = entry["offset_bytes"].value
        data = np.ascontiguousarray(weights.array_of(entry["value"])).reshape(-1).view(np.uint8)
        blob[offset : offset + data.size] = data
    return blob
