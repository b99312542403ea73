"""The bindings ship without type stubs: whatever comes out of them is Any."""

from typing import Any

def __getattr__(name: str) -> Any: ...
