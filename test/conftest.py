"""Shared by all tests: every lit file is one pytest item, so that one command runs everything."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from test import forked_lit, tiers

ROOT = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    tiers.in_quick_tier = config.option.markexpr == "not slow"
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name != "test_pyright")  # a minute in one process: no worker should wait for it at the end


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays: to look for garbage among it, again and again, takes a fifth of the time
    gc.enable()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".mlir" and "Inputs" not in file_path.parts and "RUN:" in file_path.read_text(errors="replace"):
        return LitFile.from_parent(parent, path=file_path)
    return None


class LitFile(pytest.File):
    """One `.mlir` file with RUN lines."""

    def collect(self):
        yield LitItem.from_parent(self, name="lit")


class LitItem(pytest.Item):
    """Runs the RUN lines of the file; fails with lit's own output."""

    def runtest(self) -> None:
        forked_lit.run(self.path)

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, AssertionError) else super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, f"lit: {self.path.relative_to(ROOT)}"
