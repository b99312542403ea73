"""What is recorded of placed presets is about these presets, and carries the clocks that they promise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from qcc.compiler.targets import place
from qcc.compiler.targets.fpga import PRESETS, FpgaTarget
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError

RECORDED = sorted(path.stem for path in place.FOLDER.glob("*.json"))
TINY = Configuration(
    rows=2, columns=2, word_bits=32, weight_lines=16, activation_words=16, parameter_entries=32, bus_bytes_per_cycle=4, post_lanes=1
)  # fmt: skip


@pytest.mark.parametrize("device", RECORDED)
def test_a_recorded_placement_is_the_presets(device: str) -> None:
    found = place.kept(device)
    assert found is not None
    preset = PRESETS[device]
    assert (found.device, found.part, found.fingerprint) == (device, preset.part, preset.configuration.fingerprint)
    assert found.configuration == preset.configuration.to_dict()
    assert preset.clock_mhz <= found.fmax_mhz
    assert all(0 < found.used[name] <= found.available[name] for name in place.RESOURCES)
    assert f"{found.fmax_mhz:g} MHz" in FpgaTarget(device).evidence


def test_what_was_not_placed_says_so() -> None:
    assert FpgaTarget("array-8x8").evidence.startswith("planned: not placed")
    assert FpgaTarget("ecp5-85k,rows=2").evidence.startswith("planned: not placed")


def test_a_preset_without_a_part_cannot_be_placed() -> None:
    with pytest.raises(QccError, match="'array-8x8' is for no part that can be placed, expected a preset for one of LFE5U-45F, LFE5U-85F"):
        place.place("array-8x8", PRESETS["array-8x8"].configuration, "", 200.0)


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "TOOLS", ("no-such-tool",))
    with pytest.raises(QccError, match=r"placing needs no-such-tool, which is not installed; run: pip install 'qcc\[fpga,place\]'"):
        place.place("x", TINY, "LFE5U-85F", 100.0)


@pytest.mark.slow
def test_figures_come_from_the_tools_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All but the tools themselves, which take minutes."""
    from qcc.runtime.fpga.rtl import verilog

    cells = {cell: {"used": i + 1, "available": 100} for i, cell in enumerate(place.RESOURCES.values())}
    commands: list[str] = []

    def nextpnr(folder: Path, *_: Any) -> None:
        (folder / "report.json").write_text(json.dumps({"fmax": {"clk": {"achieved": 101.234}}, "utilization": cells}))

    monkeypatch.setattr(place, "TOOLS", ("amaranth",))
    monkeypatch.setattr(verilog, "yosys", lambda given, *_: commands.extend(given))
    monkeypatch.setattr(place, "_nextpnr", nextpnr)
    found = place.place("tiny", TINY, "LFE5U-85F", 100.0, folder=tmp_path)
    assert "module \\shell" in (tmp_path / "shell.il").read_text() and any("synth_ecp5" in c for c in commands)
    assert (found.fmax_mhz, found.fingerprint, found.used["block RAM"]) == (101.2, TINY.fingerprint, 3)
    found.write(tmp_path / "tiny.json")
    monkeypatch.setattr(place, "FOLDER", tmp_path)
    assert place.kept("tiny") == found
    assert dataclasses.replace(found, seed=2) != found
