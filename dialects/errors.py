"""The one exception a user is meant to see.

Rule for messages: lower case, no final period, what was found, what was expected, the remedy.
"""

from __future__ import annotations


class QccError(Exception):
    """A model or an option that qcc cannot accept; never a bug in qcc.

    `layer` is the name of the layer in the source model, `location` the MLIR location in text; both may be empty.
    """

    def __init__(self, message: str, *, layer: str = "", location: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.layer = layer
        self.location = location

    def __str__(self) -> str:
        where = f"layer '{self.layer}': " if self.layer else ""
        return where + self.message
