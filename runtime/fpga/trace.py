"""What a simulation saw besides the outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qcc.runtime.fpga.isa import UNITS


@dataclass
class Trace:
    """Of all accelerator segments of one run. `cycles` and what depends on time are None at level functional.

    `busy` has cycles per unit; `layers` rows of name, start, end (cycles), busy, dram_bytes, instructions;
    `dram_bytes` counts loads, stores
    and instructions; `saved_bytes` is what zero flags of activations kept from being counted there. Time on the host is not included.
    """

    level: str
    clock_mhz: float
    cycles: int | None = None
    read_bytes: int = 0
    write_bytes: int = 0
    instruction_bytes: int = 0
    saved_bytes: int = 0
    instructions: int = 0
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))
    layers: list[dict[str, Any]] = field(default_factory=lambda: [])

    @property
    def dram_bytes(self) -> int:
        return self.read_bytes + self.write_bytes + self.instruction_bytes

    @property
    def milliseconds(self) -> float | None:
        """Time on the accelerator at its clock."""
        return None if self.cycles is None else self.cycles / self.clock_mhz / 1000

    def summary(self) -> str:
        """A few lines for people: totals, then one line per layer."""
        lines = [
            f"{self.instructions} instructions, {self.dram_bytes} bytes of DRAM traffic "
            f"(read {self.read_bytes}, written {self.write_bytes}, instructions {self.instruction_bytes})"
        ]
        if self.saved_bytes:
            lines.append(f"zero flags of activations: {self.dram_bytes} bytes instead of {self.dram_bytes + self.saved_bytes}")
        if self.cycles is not None:
            shares = ", ".join(f"{unit} {self.busy[unit] / max(self.cycles, 1):.0%}" for unit in UNITS)
            lines.insert(0, f"{self.cycles} cycles, {self.milliseconds:.3f} ms at {self.clock_mhz:g} MHz; busy: {shares}")
            width = max((len(row["name"]) for row in self.layers), default=0)
            for row in self.layers:
                lines.append(
                    f"  {row['name']:<{width}}  cycles {row['start']:>10} to {row['end']:>10}  execute {row['busy']['execute']:>9}  "
                    f"{row['dram_bytes']:>9} bytes"
                )
        return "\n".join(lines)
