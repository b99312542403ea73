"""What an artefact says about itself: plain data that becomes JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

import qcc
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects import element_types
from qcc.dialects.mlir import ir, op_attribute
from qcc.runtime.cpu.artifact_file import FORMAT_VERSION


def metadata(
    module: ir.Module, target: CpuTarget, blob: np.ndarray[Any, Any], *, fingerprint: str = "", report: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Names, shapes, types and quantization of inputs and outputs, steps, needed CPU features, versions and the report.

    Times are left out of what the report says of compilation, so that the artefact is reproducible byte for byte.
    """
    attributes = module.operation.attributes
    steps = op_attribute(module.operation, "qcc.steps", [])
    kept = {key: value for key, value in (report or {}).items() if key != "seconds"}
    found = {
        "format_version": FORMAT_VERSION,
        "producer": f"qcc {qcc.__version__}",
        "target": "cpu",
        "cpu": target.cpu,
        "cpu_features": list(target.features),
        "fingerprint": fingerprint,
        "inputs": [_tensor(entry) for entry in attributes["qcc.inputs"]],
        "outputs": [_tensor(entry) for entry in attributes["qcc.outputs"]],
        "states": [_tensor(entry) | {"offset_bytes": entry["offset_bytes"].value} for entry in _states(attributes)],
        "arena_bytes": op_attribute(module.operation, "qcc.arena_bytes", 0),
        "weights_bytes": op_attribute(module.operation, "qcc.weights_bytes", 0),
        "weights_sha256": hashlib.sha256(blob.tobytes()).hexdigest(),
        "bytes_per_run": sum(step["bytes"] for step in steps),
        "steps": steps,
        "report": {"layers": [], "remarks": [], **kept},
    }
    return json.loads(json.dumps(found, default=_plain, sort_keys=True))


def _states(attributes: Any) -> Any:
    return attributes["qcc.states"] if "qcc.states" in attributes else []


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def _tensor(entry: Any) -> dict[str, Any]:
    """`{name, type}` of a `qcc.inputs`, `qcc.outputs` or `qcc.states` attribute as plain data."""
    return tensor_entry(entry["name"].value, entry["type"].value)


def tensor_entry(name: str, tensor: ir.Type) -> dict[str, Any]:
    """Name, shape, container and quantization of a tensor as plain data."""
    kind = ir.RankedTensorType(tensor)
    found: dict[str, Any] = {
        "name": name,
        "shape": list(kind.shape),
        "dtype": element_types.storage_dtype(kind).name,
        "quantization": None,
    }
    if (affine := element_types.affine(kind)) is not None:
        found["quantization"] = {
            "bits": affine.bits,
            "signed": affine.signed,
            "scale": affine.scales.tolist() if affine.axis is not None else float(affine.scales[0]),
            "zero_point": affine.zero_points.tolist() if affine.axis is not None else int(affine.zero_points[0]),
            **({"axis": affine.axis} if affine.axis is not None else {}),
        }
    return found
