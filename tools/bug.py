"""What a tool prints for a bug in qcc: where everything needed to repeat it was saved."""

from __future__ import annotations

import shlex
import sys
import tempfile
import traceback
from pathlib import Path


def report_bug(tool: str, error: Exception) -> int:
    """Save the traceback and the command beside the driver's reproducer (or alone), say where, and return exit status 2."""
    folder: Path | None = getattr(error, "reproducer", None)
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="qcc-reproducer-"))
        (folder / "command.sh").write_text(shlex.join([tool, *sys.argv[1:]]) + "\n")
    (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
    print(f"{tool}: internal error: {error}", file=sys.stderr)
    print(f"{tool}: this is a bug in qcc; what repeats it is in {folder}; run: sh {folder}/command.sh", file=sys.stderr)
    return 2
