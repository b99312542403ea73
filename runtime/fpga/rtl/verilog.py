"""Amaranth components as RTLIL, and RTLIL through Yosys, which runs in a process of its own."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from amaranth.back import rtlil as back
from amaranth.hdl import Const, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from qcc.dialects.errors import QccError

_YOSYS = "import sys; from pyosys import libyosys as y; d = y.Design(); [y.run_pass(c, d) for c in sys.argv[1:]]"

COLLISIONS = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i"
"""Yosys' command: no unit uses what it reads at an address in the cycle in which that is written, so nothing needs to say what that is.

Without it, synthesis puts a bypass around every block RAM. The simulator makes such words all ones, so a program that used one would fail.
"""


def rtlil(component: wiring.Component, name: str) -> str:
    """The text of `component` as module `name`; ports are called by their paths, with `_` between."""
    ports: dict[str, tuple[Value, PortDirection]] = {}
    for path, member, found in component.signature.flatten(component):
        value = Value.cast(found)
        if not isinstance(value, Const):  # the `ready` of a stream that is always ready
            ports["_".join(map(str, path))] = value, PortDirection.Input if member.flow == wiring.In else PortDirection.Output
    collects = gc.isenabled()
    gc.disable()  # millions of small objects that all live to the end: to look for garbage among them takes half of the time
    try:
        return back.convert(component, name=name, ports=ports, emit_src=False)
    finally:
        if collects:
            gc.enable()


def yosys(commands: Sequence[str], folder: Path, line: Callable[[str], None] = lambda text: None) -> None:
    """Run Yosys' `commands` in `folder`; `line` sees its log. Raises QccError where Yosys is not installed or fails."""
    if importlib.util.find_spec("pyosys") is None:
        raise QccError("Yosys is not installed; run: pip install 'qcc[fpga]'")
    command = [sys.executable, "-c", _YOSYS, *commands]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        last: list[str] = []
        for text in process.stdout:
            line(text)
            last = [*last[-20:], text]
    if process.returncode:
        raise QccError(f"Yosys ends with status {process.returncode} and says: {''.join(last).strip()}")


def write_verilog(component: wiring.Component, name: str, folder: Path) -> Path:
    """`component` as Verilog in `folder`."""
    (folder / f"{name}.il").write_text(rtlil(component, name))
    # what Amaranth itself runs; its own way to Yosys does not know pyosys
    yosys(
        [f"read_rtlil {name}.il", COLLISIONS, "proc -nomux -norom", "memory_collect", f"write_verilog -norename -noattr {name}.v"], folder
    )
    return folder / f"{name}.v"
