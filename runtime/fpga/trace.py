"""What a simulation saw besides the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qcc.runtime.fpga.isa import UNITS


@dataclass
class Trace:
    """Of all accelerator segments of one run. `cycles` and what depends on time are None at level functional.

    `busy` has cycles per unit; `layers` rows of name, start, end (cycles), busy, dram_bytes, activations, instructions; `dram_bytes` counts
    loads, stores and instructions; `activations` are the bytes of pixels among these by their coding: moved, and what raw ones would have
    moved. Time on the host is not included.
    """

    level: str
    clock_mhz: float
    cycles: int | None = None
    read_bytes: int = 0
    write_bytes: int = 0
    instruction_bytes: int = 0
    instructions: int = 0
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))
    activations: dict[str, tuple[int, int]] = field(default_factory=lambda: {})
    layers: list[dict[str, Any]] = field(default_factory=lambda: [])

    @property
    def dram_bytes(self) -> int:
        return self.read_bytes + self.write_bytes + self.instruction_bytes

    @property
    def saved_bytes(self) -> int:
        """Bytes that codings of activations kept from moving."""
        return sum(raw - moved for moved, raw in self.activations.values())

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
        if any(coding != "raw" for coding in self.activations):
            lines.append(f"activations: {coded_text(self.activations)}; all traffic {self.saved_bytes} bytes less than without codings")
        if self.cycles is not None:
            shares = ", ".join(f"{unit} {self.busy[unit] / max(self.cycles, 1):.0%}" for unit in UNITS)
            lines.insert(0, f"{self.cycles} cycles, {self.milliseconds:.3f} ms at {self.clock_mhz:g} MHz; busy: {shares}")
            width = max((len(row["name"]) for row in self.layers), default=0)
            for row in self.layers:
                lines.append(
                    f"  {row['name']:<{width}}  cycles {row['start']:>10} to {row['end']:>10}  execute {row['busy']['execute']:>9}  "
                    f"{row['dram_bytes']:>9} bytes; activations: {coded_text(row['activations'])}"
                )
        return "\n".join(lines)


def add_activations(held: dict[str, tuple[int, int]], more: Mapping[str, Sequence[int]]) -> None:
    """Add what `more` moved to `held`, coding by coding."""
    for coding, (moved, raw) in more.items():
        before = held.get(coding, (0, 0))
        held[coding] = before[0] + moved, before[1] + raw


def coded_text(activations: Mapping[str, Sequence[int]]) -> str:
    """Which codings moved how much, for people."""
    found = [
        f"{coding} {moved} bytes" if coding == "raw" else f"{coding} {moved} of {raw} bytes ({moved / max(raw, 1):.2f})"
        for coding, (moved, raw) in activations.items()
    ]
    return ", ".join(found) or "none"
