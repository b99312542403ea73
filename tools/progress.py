"""Progress of long steps: a bar on a terminal, a line now and then elsewhere, nothing for what is done at once."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

QUIET_SECONDS = 1.5  # shorter work needs no progress
LINE_SECONDS = 5.0  # distance of lines where there is no terminal


class Progress:
    """Context manager whose `update(text, fraction)` a driver calls as it goes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, text: str, fraction: float) -> None:
        """Show that `text` is going on and `fraction` (0 to 1) of the work is done."""
        now = time.monotonic()
        if self._quiet or now - self._start < QUIET_SECONDS:
            return
        if sys.stderr.isatty():
            self._show(text, fraction)
        elif now - self._last >= LINE_SECONDS:
            self._last = now
            print(f"qcc: {fraction:4.0%} {text} ({now - self._start:.0f} s)", file=sys.stderr, flush=True)

    def _show(self, text: str, fraction: float) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(TextColumn("qcc"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
                            console=Console(stderr=True), transient=True)  # fmt: skip
            self._task = self._bar.add_task(text, total=1.0)
            self._bar.start()
        self._bar.update(self._task, description=text, completed=fraction)
