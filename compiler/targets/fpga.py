"""Accelerator targets: presets of devices, and how a compilation becomes an executable for one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qcc.compiler.targets import place
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError

if TYPE_CHECKING:
    from qcc.compiler.driver import Compilation


@dataclass(frozen=True)
class Device:
    """A preset. `part` is what place.py places it on; nothing where the RTL does not reach."""

    configuration: Configuration
    clock_mhz: float
    part: str = ""


# Clocks of the ECP5 presets: nextpnr estimates 66 MHz after placing ecp5-85k (81 without wide multiplexers); routing has not been finished.
PRESETS: dict[str, Device] = {
    # 208 block RAMs of 18 kbit; weights take 64, activations 32, tags 9, the rest under 30.
    "ecp5-85k": Device(Configuration(), 65.0, "LFE5U-85F"),
    # 108 block RAMs.
    "ecp5-45k": Device(
        Configuration(weight_lines=1536, activation_words=1024, residual_words=256, output_words=256, parameter_entries=512),
        65.0,
        "LFE5U-45F",
    ),
    # Room for larger arrays on larger devices, and for tests.
    "array-8x8": Device(
        Configuration(
            rows=8,
            columns=8,
            weight_lines=4096,
            activation_words=4096,
            output_words=1024,
            residual_words=1024,
            parameter_entries=4096,
            bus_bytes_per_cycle=16,
            post_lanes=8,
        ),
        200.0,
    ),
}


@dataclass(frozen=True)
class FpgaTarget:
    """An accelerator: a preset's name, optionally with parameters of dialects/accelerator.py changed.

    `qcc.compile(model, target=FpgaTarget("ecp5-85k"))` or `FpgaTarget("ecp5-85k,rows=8,bus_bytes_per_cycle=16")`.
    `clock_mhz` None means the
    preset's clock; it turns cycles into seconds in reports and changes nothing else.
    """

    device: str = "ecp5-85k"
    clock_mhz: float | None = None

    def __post_init__(self) -> None:
        _ = self.configuration
        if self.clock_mhz is not None and not self.clock_mhz > 0:
            raise QccError(f"clock_mhz is {self.clock_mhz}, expected a positive number")

    @property
    def preset(self) -> Device:
        name = self.device.split(",")[0]
        if name not in PRESETS:
            raise QccError(f"device is '{name}', expected one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @property
    def configuration(self) -> Configuration:
        """The accelerator's parameters. Raises QccError for an unknown device or parameter."""
        changed: dict[str, int] = {}
        known = [f.name for f in dataclasses.fields(Configuration)]
        for item in self.device.split(",")[1:]:
            key, _, value = item.strip().replace("-", "_").partition("=")
            if key not in known or not value.isdecimal():
                raise QccError(f"device has '{item}', expected a number for one of {', '.join(known)}, as in 'ecp5-85k,rows=8'")
            changed[key] = int(value)
        return dataclasses.replace(self.preset.configuration, **changed)

    @property
    def evidence(self) -> str:
        """What the preset's clock and buffers rest on."""
        placed = place.kept(self.device)
        return str(placed) if placed else "planned: not placed and routed; buffers fit the device's block RAM by their size"

    @property
    def megahertz(self) -> float:
        return self.preset.clock_mhz if self.clock_mhz is None else self.clock_mhz

    def options(self) -> dict[str, str]:
        """The fields of CompileOptions that choose this target."""
        return {"target": "fpga", "device": self.device}

    def stage_options(self) -> dict[str, Any]:
        """What stages of the pipeline may name in braces."""
        return {"accelerator": " ".join(f"{k.replace('_', '-')}={v}" for k, v in self.configuration.to_dict().items())}


def build(compilation: Compilation, **run: Any) -> Any:
    """Run the pipeline to the instruction stream and make the executable. `run` (threads) is for the host segments."""
    from qcc.compiler.emit import accelerator

    module = compilation.run_to("isa")
    target = FpgaTarget(compilation.options.device)
    return accelerator.executable(compilation, module, clock_mhz=target.megahertz, **run)
