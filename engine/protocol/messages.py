"""What an agent may say: anything of another form is not listened to any further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.agent.wire import AgentError, decode

Message = dict[str, Any]


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _are_texts(value: Any, number: int) -> bool:
    return isinstance(value, list) and len(value) == number and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int)


_FORMS: dict[str, Callable[[Any], bool]] = {
    "hello": _is_number,
    "beat": _is_number,
    "entries": _is_number,
    "progress": _is_number,
    "delivered": _is_text,
    "held": _is_number,
    "done": lambda value: isinstance(value, dict),
    "parts": lambda value: isinstance(value, list),
    "error": lambda value: _are_texts(value, 2),
    "failures": lambda value: isinstance(value, list) and all(_are_texts(v, 3) for v in value),
}


def answer_in(body: bytes) -> Message:
    """The answer in a frame's body; AgentError if it is of no form we know."""
    message = decode(body)
    if not any(name in message and is_form(message[name]) for name, is_form in _FORMS.items()):
        raise AgentError("AGENT_FAILED", "an answer has a form that we do not know")
    if any(name in message and not is_form(message[name]) for name, is_form in _FORMS.items()):
        raise AgentError("AGENT_FAILED", "an answer has a form that we do not know")
    return message


def is_of_parcel(done: Message) -> bool:
    """Whether an answer about a parcel has all that is due, in its form."""
    errors = done.get("errors")
    if not isinstance(errors, dict) or not all(_are_texts(pair, 2) for pair in errors.values()):
        return False
    if "sent" in done:
        return _is_text(done.get("archive")) and "torn" in done
    refused = done.get("refused")
    fits = isinstance(refused, list) and all(map(_is_text, refused))
    return fits and _is_number(done.get("refusals")) and _is_text(done.get("list"))
