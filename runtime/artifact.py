"""One way to load what qcc wrote, for CPU or accelerator: the first bytes of the file say which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qcc.dialects.errors import QccError

ACCELERATOR_MAGIC = b"QFPG"


def load(path: Any, *, threads: int | None = None) -> Any:
    """The executable stored in `path`. Raises QccError for a file that is missing, damaged, or for another machine."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise QccError(f"cannot read artefact {path}: {error.strerror or error}") from None
    from qcc.runtime.cpu import artifact_file

    if magic == artifact_file.ELF_MAGIC:
        from qcc.runtime.cpu import executable

        return executable.load_artifact(path, threads=threads)
    if magic == ACCELERATOR_MAGIC:
        from qcc.runtime.fpga import artifact as accelerator_file

        return accelerator_file.load(path)
    raise QccError(
        f"{path} is not an artefact: it begins with {magic.hex() or 'nothing'}, expected a shared object or an accelerator file made by qcc"
    )
