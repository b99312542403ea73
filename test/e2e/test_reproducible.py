"""The same model and options give the same bytes, whatever the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_cnn.onnx", "digits_mixer.mlir"])
def test_artefacts_do_not_depend_on_the_process(name: str, tmp_path: Path) -> None:
    made: list[bytes] = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        command = [sys.executable, "-m", "qcc.tools.qcc", str(EXAMPLES / name), "-o", str(folder / "model.so"), "--quiet"]
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONHASHSEED": seed})
        made.append((folder / "model.so").read_bytes())
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in made[0]
