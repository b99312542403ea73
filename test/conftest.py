"""Shared by all tests: every lit file is one pytest item, so that one command runs everything."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
QUICK_EXAMPLES = 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the quick tier a property test draws a few examples only."""
    if config.option.markexpr == "not slow":
        from hypothesis import settings

        for function in {item.function for item in items if hasattr(getattr(item, "function", None), "hypothesis")}:
            given = function._hypothesis_internal_use_settings
            function._hypothesis_internal_use_settings = settings(given, max_examples=min(given.max_examples, QUICK_EXAMPLES))


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
        from test import forked_lit

        forked_lit.run(self.path)

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, AssertionError) else super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, f"lit: {self.path.relative_to(ROOT)}"
