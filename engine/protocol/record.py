"""Plain values of named fields, cheap to declare.

A NamedTuple takes 0.2 ms to declare, since Python compiles a text for each; the protocol has some
25, and every transfer declares them all (decision 9). A data class takes longer still.
"""

from __future__ import annotations

from typing import Any, ClassVar, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """A value whose fields are the annotations of its class, in order, with defaults."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        # Not `inspect`, which takes long to import.
        cls._fields = tuple(cls.__dict__.get("__annotations__", ()))  # noqa: RUF063

    def __init__(self, *values: Any, **named: Any) -> None:
        given = dict(zip(self._fields, values, strict=False), **named)
        missing = [name for name in self._fields if name not in given and not hasattr(self, name)]
        if missing or len(given) != len(values) + len(named) or given.keys() - set(self._fields):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self._fields)}")
        self.__dict__.update(given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and type(other) is type(self) and self._all == other._all

    def __hash__(self) -> int:
        return hash((type(self), *self._all))

    @property
    def _all(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({shown})"
