"""`NamedTuple` and `TYPE_CHECKING` without `typing`, which takes an agent 5 ms to import.

That is a tenth of an agent's start (docs/decisions/0009). Modules of the agent import everything
else of `typing` below `if TYPE_CHECKING:`; annotations are never evaluated.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any
    from typing import NamedTuple as NamedTuple
else:

    class _Declaration(type):
        """Makes a named tuple of a class's annotations, defaults and methods."""

        def __new__(
            cls, name: str, bases: tuple[type, ...], body: dict[str, Any]
        ) -> _Declaration | type[tuple[Any, ...]]:
            """Return the named tuple; the class without bases is `NamedTuple` itself."""
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                if key not in fields and key not in ("__module__", "__slots__"):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Declaration):
        """The base of a class whose annotations are the fields of a tuple."""
