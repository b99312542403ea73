"""The compilers that qcc calls."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence

from qcc.dialects.errors import QccError


def find_compiler(variable: str, names: Sequence[str], language: str, missing: str) -> list[str]:
    """The words of the command in environment variable `variable`, or the first of `names` that is installed.

    Raises QccError: for a `variable` that names no executable, and with the text `missing` where there is none of `names`.
    """
    if chosen := os.environ.get(variable):
        words = shlex.split(chosen)
        if shutil.which(words[0]) is None:
            raise QccError(f"{variable} is '{chosen}', which is not an executable; unset {variable} or name a {language} compiler")
        return words
    for name in names:
        if shutil.which(name):
            return [name]
    raise QccError(missing)
