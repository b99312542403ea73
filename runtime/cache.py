"""Where qcc keeps what it measured or built for this user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """XDG_CACHE_HOME/qcc, by default ~/.cache/qcc."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcc"
