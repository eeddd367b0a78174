"""Text that Postgres can store.

File names are bytes and error messages quote them, but a Postgres text can hold
neither NUL nor a lone surrogate, and Postgres JSON can hold neither as an escape.
"""

from __future__ import annotations

import math
from typing import Any

#: Characters.
MAX_MESSAGE = 4000


def is_storable(text: str) -> bool:
    """Whether Postgres can store this text: it has no NUL and no half of a surrogate pair."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


def storable(value: Any) -> Any:
    """Return the same text, list or mapping, with unstorable characters as escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if isinstance(value, dict):
        return {storable(str(key)): storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return storable(str(value))


def sentence(text: str) -> str:
    """Return a message that fits in an event: storable, at most MAX_MESSAGE characters long."""
    text = storable(text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
