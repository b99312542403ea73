"""Shared by all tests: every lit file is one pytest item, so that one command runs everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".mlir" and "Inputs" not in file_path.parts and "RUN:" in file_path.read_text(errors="replace"):
        return LitFile.from_parent(parent, path=file_path)
    return None


class LitFile(pytest.File):
    """One `.mlir` file with RUN lines."""

    def collect(self):
        yield LitItem.from_parent(self, name="lit")


class LitItem(pytest.Item):
    """Runs lit on the file; fails with lit's own output."""

    def runtest(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "from lit.main import main; main()", "-v", str(self.path)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise LitFailure(done.stdout + done.stderr)

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, LitFailure) else super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, f"lit: {self.path.relative_to(ROOT)}"


class LitFailure(Exception):
    """Output of a failing lit run."""
