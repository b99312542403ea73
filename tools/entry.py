"""What every tool does at its borders: its options, arrays it is given, the exit status, what it says of errors, bugs and interruptions."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from qcc.dialects.errors import QccError


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the lines of its examples, and for which a wrong option is a QccError like any other: status 1."""

    def __init__(self, **given: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **given)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def guarded(tool: str, work: Callable[[], int]) -> int:
    """The exit status of `work`: its own, 1 for a QccError (printed), 2 for a bug in qcc (saved and named), 130 for an interruption."""
    try:
        return work()
    except QccError as error:
        print(f"{tool}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"{tool}: interrupted; no file is left half-written", file=sys.stderr)
        return 130
    except Exception as error:  # the one broad handler: what gets here is a bug, and the user must be able to report it
        return _report_bug(tool, error)


def _report_bug(tool: str, error: Exception) -> int:
    """Save the traceback and the command beside the driver's reproducer (or alone), say where, and return exit status 2."""
    folder: Path | None = getattr(error, "reproducer", None)
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="qcc-reproducer-"))
        (folder / "command.sh").write_text(shlex.join([tool, *sys.argv[1:]]) + "\n")
    (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
    print(f"{tool}: internal error: {error}", file=sys.stderr)
    print(f"{tool}: this is a bug in qcc; what repeats it is in {folder}; run: sh {folder}/command.sh", file=sys.stderr)
    return 2


def read_array(path: str) -> Any:
    """The array in a .npy file, or the arrays by name in a .npz. Raises QccError for any other file."""
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise QccError(f"cannot read {path}: {error}; expected a .npy or .npz file of numbers") from None
