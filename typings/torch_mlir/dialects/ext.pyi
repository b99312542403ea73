"""The bindings ship without type stubs: whatever comes out of them is Any."""

from typing import Any

class Dialect:
    DIALECT_NAMESPACE: str
    operations: list[Any]
    Operation: Any
    Type: Any
    Attribute: Any
    def __init_subclass__(cls, **kwargs: Any) -> None: ...
    @classmethod
    def load(cls) -> None: ...

class OperationBase:
    """What `qcc.dialects.operation.base_of` makes; exists for the type checker only."""

    def __init_subclass__(cls, **kwargs: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
