"""Energy per inference from counted operations and bytes.

Default figures: M. Horowitz, "Computing's energy problem", ISSCC 2014, 45 nm. They say how layers and formats compare, not what a
particular chip draws; `--energy-table` gives others, as JSON with the same names (any of them may be left out):

    {"name": "my chip, 7 nm",
     "add_pj": {"int8": 0.03, "int32": 0.1, "fp16": 0.4, "fp32": 0.9},
     "multiply_pj": {"int8": 0.2, "int32": 3.1, "fp16": 1.1, "fp32": 3.7},
     "memory_64bit_pj": {"cache_8k": 10, "cache_32k": 20, "cache_1m": 100, "dram": 1300}}

What is counted: one multiplication and one addition for every product with a non-zero weight (none of the former where weights are only
-1, 0 and 1: signs are additions); for every result that is rescaled one addition (bias) and one binary32 multiplication; weights once from
DRAM, as many bytes as are stored; inputs and outputs from the smallest level that holds both, but not what a fused layer gets from the one
before it in registers. Reuse out of registers costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qcc.compiler.cost.layers import LayerCount
from qcc.dialects.errors import QccError

LEVEL_BYTES = {"cache_8k": 8 << 10, "cache_32k": 32 << 10, "cache_1m": 1 << 20}  # smaller ones first; dram holds the rest


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules. `add_pj` and `multiply_pj` by class of operand; `memory_64bit_pj` per 64 bits by level."""

    name: str = "Horowitz, ISSCC 2014, 45 nm"
    add_pj: dict[str, float] = field(default_factory=lambda: {"int8": 0.03, "int32": 0.1, "fp16": 0.4, "fp32": 0.9})
    multiply_pj: dict[str, float] = field(default_factory=lambda: {"int8": 0.2, "int32": 3.1, "fp16": 1.1, "fp32": 3.7})
    memory_64bit_pj: dict[str, float] = field(default_factory=lambda: {"cache_8k": 10, "cache_32k": 20, "cache_1m": 100, "dram": 1300})

    def addition_pj(self, kind: str) -> float:
        """One addition: `fp16`, `fp32`, or `intN`, whose energy grows with N."""
        if kind in self.add_pj:
            return self.add_pj[kind]
        bits = int(kind.removeprefix("int"))
        nearest = "int8" if bits <= 8 else "int32"
        return self.add_pj[nearest] * bits / (8 if nearest == "int8" else 32)

    def multiplication_pj(self, kind: str) -> float:
        """One multiplication: `fp16`, `fp32`, or `intAxB`, whose energy grows with the product of the widths."""
        if kind in self.multiply_pj:
            return self.multiply_pj[kind]
        a, b = (int(bits) for bits in kind.removeprefix("int").split("x"))
        return self.multiply_pj["int8"] * a * b / 64 if a * b <= 64 else self.multiply_pj["int32"] * a * b / 1024

    def access_pj(self, level: str, count: float) -> float:
        """`count` bytes from or to `level`."""
        return self.memory_64bit_pj[level] * count / 8


@dataclass(frozen=True)
class EnergyCount:
    """What one layer does in one inference: operations by kind, and bytes by memory level, weights apart from activations."""

    multiplications: dict[str, int]
    additions: dict[str, int]
    weight_bytes: dict[str, int]
    activation_bytes: dict[str, int]

    def with_weight_bytes(self, stored_bytes: int) -> EnergyCount:
        """The same with weights of another size, for example coded."""
        return replace(self, weight_bytes={"dram": stored_bytes} if stored_bytes else {})

    def with_activation_bytes(self, moved: int) -> EnergyCount:
        """The same with inputs and outputs of another size together, from the smallest level that holds them."""
        level = next((name for name, size in LEVEL_BYTES.items() if moved <= size), "dram")
        return replace(self, activation_bytes={level: moved} if moved else {})

    def parts_pj(self, table: EnergyTable) -> dict[str, float]:
        """Picojoules of compute, weights and activations."""
        compute = sum(table.multiplication_pj(kind) * n for kind, n in self.multiplications.items())
        compute += sum(table.addition_pj(kind) * n for kind, n in self.additions.items())
        moved = [sum(table.access_pj(level, n) for level, n in part.items()) for part in (self.weight_bytes, self.activation_bytes)]
        return {"compute": compute, "weights": moved[0], "activations": moved[1]}


def count(layer: LayerCount) -> EnergyCount:
    """Operations and bytes of one layer, as the module's docstring says."""
    multiplications: dict[str, int] = {}
    additions: dict[str, int] = {}
    outputs = 1
    for size in layer.output_shape:
        outputs *= size
    if layer.macs:
        adds = layer.arithmetic if layer.arithmetic != "int" else f"int{layer.accumulator_bits}"
        _add(additions, adds, layer.nonzero_macs)
        if not layer.unit_weights:
            _add(multiplications, _product(layer), layer.nonzero_macs)
        if layer.arithmetic == "int":
            _add(additions, adds, outputs)
            _add(multiplications, "fp32", outputs)
    elif not layer.generic:
        _add(additions, layer.arithmetic if layer.arithmetic != "int" else "int32", outputs)
    counts = EnergyCount(multiplications, additions, {}, {}).with_weight_bytes(layer.weight_bytes)
    return counts.with_activation_bytes(layer.input_bytes + layer.output_bytes)


def _product(layer: LayerCount) -> str:
    if layer.arithmetic != "int":
        return layer.arithmetic
    return f"int{layer.weight_bits or layer.activation_bits}x{layer.activation_bits}"


def _add(counts: dict[str, int], kind: str, number: int) -> None:
    if number:
        counts[kind] = counts.get(kind, 0) + number


def row_entries(counts: EnergyCount, table: EnergyTable) -> dict[str, Any]:
    """The entries of a report's row: counts, and energy in nanojoules in all and by part."""
    parts = {name: pj / 1000 for name, pj in counts.parts_pj(table).items()}
    return {"energy_counts": asdict(counts), "energy_parts_nj": parts, "energy_nj": sum(parts.values())}


def read_table(path: str | None) -> EnergyTable:
    """The table in a JSON file, over the default one; the default for None. Raises QccError for anything that is no such table."""
    table = EnergyTable()
    if path is None:
        return table
    try:
        held: Any = json.loads(Path(path).read_text())
    except OSError as error:
        raise QccError(f"cannot read energy table {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise QccError(f"energy table {path} is not JSON: {error}") from None
    known = [f.name for f in fields(EnergyTable)]
    if not isinstance(held, dict):
        raise QccError(f"energy table {path} holds a {type(held).__name__}, expected an object with {', '.join(known)}")
    for part, values in held.items():
        if part not in known:
            raise QccError(f"energy table {path} has '{part}', expected some of {', '.join(known)}")
        if part == "name":
            table = replace(table, name=str(values))
            continue
        default: dict[str, float] = getattr(table, part)
        if not isinstance(values, dict):
            raise QccError(f"energy table {path} has {values!r} for '{part}', expected an object with some of {', '.join(default)}")
        for key, value in values.items():
            if key not in default:
                raise QccError(f"energy table {path} has '{key}' in '{part}', expected an object with some of {', '.join(default)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise QccError(f"energy table {path} has {value!r} for '{key}' in '{part}', expected picojoules, a number from 0 on")
        table = replace(table, **{part: {**default, **{key: float(value) for key, value in values.items()}}})
    return table
