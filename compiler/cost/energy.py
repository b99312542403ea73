"""Energy per inference from counted operations and bytes.

Default tables: M. Horowitz, "Computing's energy problem", ISSCC 2014, 45 nm. The figures say how layers compare,
not what a particular chip draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qcc.compiler.cost.layers import LayerCount


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules. `add` and `multiply` by operand class; `memory_64bit` per 64-bit access by level."""

    add_pj: dict[str, float] = field(default_factory=lambda: {"int8": 0.03, "int32": 0.1, "fp16": 0.4, "fp32": 0.9})
    multiply_pj: dict[str, float] = field(default_factory=lambda: {"int8": 0.2, "int32": 3.1, "fp16": 1.1, "fp32": 3.7})
    memory_64bit_pj: dict[str, float] = field(default_factory=lambda: {"cache_8k": 10, "cache_32k": 20, "cache_1m": 100, "dram": 1300})

    def mac_pj(self, weight_bits: int, activation_bits: int) -> float:
        """Energy of one multiply-accumulate; an integer multiplier's energy grows with the product of the widths."""
        if weight_bits == 0 or activation_bits > 16:
            return self.multiply_pj["fp32"] + self.add_pj["fp32"]
        return self.multiply_pj["int8"] * (weight_bits * activation_bits) / 64 + self.add_pj["int32"]


def layer_energy_pj(layer: LayerCount, table: EnergyTable | None = None) -> float:
    """Picojoules of one layer: non-zero multiply-accumulates, weights from DRAM, activations from the last-level cache."""
    table = table or EnergyTable()
    compute = layer.nonzero_macs * table.mac_pj(layer.weight_bits, layer.activation_bits)
    return (
        compute
        + layer.weight_bytes / 8 * table.memory_64bit_pj["dram"]
        + (layer.input_bytes + layer.output_bytes) / 8 * table.memory_64bit_pj["cache_1m"]
    )
