"""Dependencies go one way, one pass is one file with one name, and starting is quick."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qcc.compiler import pipeline
from qcc.passes.base import load_pass, pass_files

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("compiler", "dialects", "passes", "runtime", "tools")
ALLOWED = {  # room -> rooms it may import from
    "dialects": {"dialects", "runtime.fpga.isa"},
    "passes": {"passes.base", "passes.values", "dialects", "runtime.fpga.isa"},
    "runtime": {"runtime", "dialects"},
    "compiler": {"compiler", "passes", "dialects", "runtime"},
    "tools": {"tools", "compiler", "passes", "dialects", "runtime"},
}
PART_OF_A_PASS = re.compile(r"passes\.\w+\.(_\w+|codelets)(\.|$)")
MAX_LINES = 500


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@functools.cache
def imported(path: Path) -> list[str]:
    """Every module that `path` imports, also inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        if not name.startswith("qcc."):
            continue
        inside = name.removeprefix("qcc.")
        allowed = any(inside == a or inside.startswith(a + ".") for a in ALLOWED[room])
        part_of_a_pass = room == "passes" and PART_OF_A_PASS.match(inside)  # a pass too long for one file keeps parts beside it
        assert allowed or part_of_a_pass, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_front_end_knows_torch_and_onnx(path: Path) -> None:
    relative = path.relative_to(ROOT)
    if relative.parts[:2] == ("compiler", "frontend"):
        return
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"torch", "onnx"}, f"{relative} imports {roots & {'torch', 'onnx'}}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_keep_one_subject(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", sorted(pass_files()))
def test_a_pass_is_one_file_one_name_one_test(name: str) -> None:
    path = pass_files()[name]
    assert load_pass(name).name == name
    assert (ROOT / "test" / "passes" / path.parent.name / f"{path.stem}.mlir").exists(), f"pass '{name}' has no lit test"


GROUPS = (pipeline.ONNX, pipeline.IMPORT, pipeline.INTEGER, pipeline.TILE, pipeline.LLVM, pipeline.ISA)


@pytest.mark.parametrize("name", sorted(pass_files()))
def test_every_pass_is_in_a_pipeline(name: str) -> None:
    stages = [s.name for group in GROUPS for s in group]
    assert name in stages, f"no pipeline runs '{name}'"


def test_every_stage_has_a_reason() -> None:
    for group in GROUPS:
        for stage in group:
            assert stage.reason, f"stage '{stage.name}' has no reason"


def test_import_is_quick_and_light() -> None:
    code = "import sys, time; t = time.process_time(); import qcc; print(time.process_time() - t); print(*sys.modules)"
    seconds, modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert float(seconds) < 0.15
    assert not {"torch", "onnx", "amaranth", "torch_mlir"} & set(modules.split())


def test_qcc_opt_starts_within_a_second_and_without_torch() -> None:
    """Processor time, which a busy machine does not change: `qcc-opt` on a small module, from its start to its end."""
    lines = ["import sys, time", "from qcc.tools.qcc_opt import main", "main([sys.argv[1], '-p', 'cse', '-o', '/dev/null'])"]
    code = "; ".join([*lines, "print(time.process_time())", "print(*sys.modules)"])
    small = ROOT / "test" / "dialects" / "qcc.mlir"
    seconds, modules = subprocess.run(
        [sys.executable, "-c", code, str(small)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert float(seconds) < 1.0
    assert not {"torch", "onnx", "amaranth"} & set(modules.split())
