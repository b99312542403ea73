"""A compiled model for the accelerator, as data: programs, weight image, host segments, and the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.ports import Port

HOST_KINDS = ("elf", "mlir")  # a CPU artefact, or text that the reference interprets


@dataclass(frozen=True)
class Segment:
    """One accelerator program and the tensors at its border. `layers[i]` is the layer of instruction i."""

    words: tuple[Word, ...]
    layers: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Host:
    """One host segment: `kind` of HOST_KINDS and its bytes."""

    kind: str
    data: bytes


@dataclass(frozen=True)
class Step:
    """Run segment `name` on values `inputs`, which gives values `outputs` of the numpy dtypes `dtypes`. Values are
    numbered from the
    model's inputs upward."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dtypes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "inputs": list(self.inputs), "outputs": list(self.outputs), "dtypes": list(self.dtypes)}


@dataclass(frozen=True)
class Package:
    """Everything that an accelerator file holds. `results` are the values that the model returns; `info` is for people and tools."""

    configuration: Configuration
    arena_bytes: int
    weights: bytes
    segments: dict[str, Segment]
    hosts: dict[str, Host]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    info: dict[str, Any] = field(default_factory=lambda: {})

    @property
    def dram_words(self) -> int:
        return (self.arena_bytes + len(self.weights)) // self.configuration.word_bytes

    def check(self) -> None:
        """Raise QccError where the parts do not fit together."""
        word = self.configuration.word_bytes
        if self.arena_bytes % word or len(self.weights) % word or self.arena_bytes < 0:
            raise QccError(f"the accelerator file's memory map is not in words of {word} bytes; compile the model again")
        known = set(range(len(self.info.get("inputs", ()))))
        for step in self.steps:
            if step.name not in self.segments and step.name not in self.hosts:
                raise QccError(f"the accelerator file runs segment '{step.name}', which it does not hold; compile the model again")
            if not known.issuperset(step.inputs) or len(step.outputs) != len(step.dtypes):
                raise QccError(f"segment '{step.name}' of the accelerator file reads values that no segment makes; compile the model again")
            known |= set(step.outputs)
        if not known.issuperset(self.results):
            raise QccError("the accelerator file returns values that no segment makes; compile the model again")
        for name, segment in self.segments.items():
            for port in (*segment.inputs, *segment.outputs):
                if port.address < 0 or port.address + port.pixels * port.pixel_words > self.arena_bytes // word:
                    raise QccError(f"a tensor of segment '{name}' lies outside the accelerator file's memory map; compile the model again")
