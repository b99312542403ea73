"""The bindings ship without type stubs: whatever comes out of them is Any."""

from typing import Any

class _Parametric:
    type_name: str
    _fields: list[Any]
    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None: ...
    @classmethod
    def get(cls, *args: Any, context: Any = None) -> Any: ...

class Type(_Parametric): ...

class Dialect:
    DIALECT_NAMESPACE: str
    operations: list[Any]
    types: list[Any]
    attributes: list[Any]
    Operation: Any

    class Type(_Parametric): ...
    class Attribute(_Parametric): ...

    def __init_subclass__(cls, **kwargs: Any) -> None: ...
    @classmethod
    def load(cls) -> None: ...

class OperationBase:
    """What `qcc.dialects.operation.base_of` makes; exists for the type checker only."""

    def __init_subclass__(cls, **kwargs: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
