"""The accelerator as a compilation sees it: what an instruction stream, the simulators and the RTL must agree about."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from qcc.dialects.errors import QccError

WORD_BITS = (32, 64, 128)


@dataclass(frozen=True)
class Configuration:
    """Shape of one accelerator. Buffer depths are per bank; every buffer but the weights' has C banks of K-bit words.

    The fields marked (timing) do not change what a program computes, but they are part of the fingerprint because
    cycle counts are promised for them.
    """

    rows: int = 4  # R: output channels at a time
    columns: int = 4  # C: output pixels at a time
    word_bits: int = 64  # K: products per unit and cycle
    weight_lines: int = 4096  # lines of R words
    activation_words: int = 2048
    residual_words: int = 512
    output_words: int = 512
    parameter_entries: int = 1024
    bus_bytes_per_cycle: int = 8  # (timing)
    dram_latency_cycles: int = 32  # (timing)
    post_lanes: int = 4  # values requantized per cycle (timing)
    queue_instructions: int = 32  # depth of each unit's instruction queue
    token_limit: int = 255  # tokens a queue holds
    accumulator_tiles: int = 2  # finished tiles that may wait for the post unit
    activation_codings: int = 1  # that load and store know: raw; 2 with zero flags; 3 with run lengths too

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise QccError(f"accelerator parameter '{field.name}' is {value!r}, expected a positive integer")
        if self.word_bits not in WORD_BITS:
            raise QccError(f"accelerator parameter 'word_bits' is {self.word_bits}, expected one of {', '.join(map(str, WORD_BITS))}")
        if self.word_bits % self.rows:
            raise QccError(
                f"accelerator parameter 'rows' is {self.rows}, expected a divisor of word_bits "
                f"({self.word_bits}): a channel tile must not straddle two words"
            )
        if self.activation_codings > 3:
            raise QccError(
                f"accelerator parameter 'activation_codings' is {self.activation_codings}, "
                "expected 1 (raw), 2 (and zero flags) or 3 (and run lengths)"
            )
        for name in ("weight_lines", "activation_words", "residual_words", "output_words", "parameter_entries"):
            if getattr(self, name) >= 1 << 16:
                raise QccError(
                    f"accelerator parameter '{name}' is {getattr(self, name)}, expected less than {1 << 16}, "
                    "which is what the instructions can address"
                )

    @property
    def word_bytes(self) -> int:
        return self.word_bits // 8

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over every parameter; an artefact runs only on the configuration it was made for."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Configuration:
        """Raises QccError for names or values that no configuration has."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise QccError(f"accelerator configuration has parameter '{unknown[0]}', expected only {', '.join(sorted(known))}")
        return cls(**values)
