"""Files that are either written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qcc.dialects.errors import QccError


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, mode: int = 0o644) -> Generator[BinaryIO]:
    """A binary stream whose bytes become `path` when the block ends without an exception. Raises QccError where that cannot be."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise QccError(f"cannot write {path}: it is no regular file; name one")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise QccError(f"cannot write {path}: {error.strerror or error}; name a file in a folder that exists and may be written") from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        os.chmod(name, mode)
        os.replace(name, target)
    except OSError as error:
        raise QccError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if os.path.exists(name):
            os.unlink(name)
