"""The accelerator: four units, their buffers, and the memory they share."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.isa import UNITS
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.buffers import LoadedBanks, OutputBanks, Parameters, WeightLines
from qcc.runtime.fpga.rtl.execute import Execute
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS
from qcc.runtime.fpga.rtl.post import Post

LEAST_STEPS = 4  # of a tile in the post unit: it reads a word, changes it and writes it back before the next tile wants it


def check(c: Configuration) -> None:
    """Raise QccError for what is simulated but not built."""
    lanes = c.post_lanes
    for wrong, found, expected in (
        (c.bus_bytes_per_cycle != c.word_bytes, f"bus_bytes_per_cycle={c.bus_bytes_per_cycle}", f"a word of {c.word_bytes} bytes"),
        (c.activation_codings != 1, f"activation_codings={c.activation_codings}", "1 (raw)"),
        (c.columns % lanes != 0, f"post_lanes={lanes}", f"a divisor of columns ({c.columns})"),
        (c.rows * c.columns < LEAST_STEPS * lanes, f"post_lanes={lanes}", f"at most {c.rows * c.columns // LEAST_STEPS}"),
    ):
        if wrong:
            raise QccError(f"the accelerator's RTL is not built for {found}, expected {expected}; simulate at level functional or cycle")
