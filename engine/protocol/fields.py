"""The forms of the fields that an agent sends: checks the type, range and size of each.

An attacker may control an agent's host. A text for people is cut to SENTENCE printable
characters; a name that the worker uses again is taken unchanged, or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from engine.agent.typed import NamedTuple
from engine.agent.wire import MAX_PATH, AgentError, show
from engine.errors import AGENT_CODES

T = TypeVar("T")

#: Characters of a real path, at most: the systems' own PATH_MAX, beyond which they look up none.
_PATH_LENGTH = 4096
#: Characters of a sentence for people, and of a host's own name, at most.
SENTENCE, NAME_LENGTH = 500, 255
#: The largest count: it fits into a column of the database.
MOST = (1 << 63) - 1
#: Items of one list, at most: an agent sends no longer one.
ITEMS = 100_000
#: Characters of an error code, and those it is made of; and of a SHA-256. Not regular expressions:
#: each would cost every start a third of a millisecond.
_CODE_LENGTH = 40
_CODE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_HEX = frozenset("0123456789abcdef")
#: The code of a protocol error, and of an error whose own code is malformed.
_UNKNOWN = "AGENT_FAILED"

#: A device, and an inode number or a path in the device's file system.
Node = tuple[int, "int | str"]


class Failure(NamedTuple):
    """Why a command or an entry failed: a code of `engine.errors`, and a sentence for people."""

    code: str
    sentence: str


class EntryProblem(NamedTuple):
    """Why an entry failed; `path` keeps bytes that are not UTF-8 as `os.fsdecode` does."""

    path: str
    code: str
    sentence: str


class Form(Generic[T]):
    """The expected form of a field: `read` returns the field's value, or raises ValueError."""

    def __init__(self, expected: str, read: Callable[[Any], T]) -> None:
        self.expected, self.read = expected, read


class Fields:
    """The fields of one JSON object, and the bytes after it; `what` names the object in errors."""

    def __init__(self, values: Any, blob: bytes, what: str) -> None:
        if not isinstance(values, dict):
            raise AgentError(_UNKNOWN, f"protocol error: {what} is not an object")
        self._values, self.blob, self._what = values, blob, what

    def get(self, name: str, form: Form[T]) -> T:
        """Return a field's value; raises AgentError (AGENT_FAILED) if it is not of that form."""
        try:
            return form.read(self._values[name])
        except KeyError:
            found = "missing"
        except ValueError:
            found = show(f"{self._values[name]!r:.100}")
        raise AgentError(
            _UNKNOWN,
            f"protocol error: {self._what}: {name} is {found}, expected {form.expected:.100}",
        )


def sentence(text: str) -> str:
    """Return a host's text as one line of at most SENTENCE printable characters."""
    return show(_text(text)[:SENTENCE])[:SENTENCE]


def whole(least: int, most: int) -> Form[int]:
    """The form of a whole number from `least` to `most`."""
    return Form(f"a number from {least} to {most}", lambda value: _int(value, least, most))


def name(most: int = MAX_PATH) -> Form[str]:
    """The form of a name or relative path: at most `most` characters, no NUL."""
    return Form(f"a name of at most {most} characters", lambda value: _name(value, most))


def one_of(*choices: str) -> Form[str]:
    """The form of a text that is one of `choices`."""
    return Form("one of " + ", ".join(choices), lambda value: choices[choices.index(value)])


def letters(known: frozenset[str], most: int) -> Form[str]:
    """The form of a text of at most `most` letters, each of them `known`."""

    def read(value: Any) -> str:
        text = _name(value, most)
        _require(known.issuperset(text))
        return text

    return Form(f"at most {most} of the letters {''.join(sorted(known))}", read)


def each(form: Form[T], most: int = ITEMS) -> Form[tuple[T, ...]]:
    """The form of a list of at most `most` items that all have one form."""
    return Form(
        f"a list of at most {most}: {form.expected}",
        lambda value: tuple(map(form.read, _list(value, most))),
    )


def by_number(form: Form[T], count: int) -> Form[dict[int, T]]:
    """The form of an object whose keys are positions in a list of `count` entries."""

    def read(value: Any) -> dict[int, T]:
        _require(isinstance(value, dict) and len(value) <= ITEMS)
        return {_position(key, count): form.read(item) for key, item in value.items()}

    return Form(f"numbers below {count} with {form.expected}", read)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _int(value: Any, least: int, most: int) -> int:
    _require(isinstance(value, int) and not isinstance(value, bool) and least <= value <= most)
    return int(value)


def _position(key: Any, count: int) -> int:
    """Read a position as an agent writes it: `int` would also take "+1", "1_0" or " 1"."""
    text = _name(key, 10)
    _require(text.isascii() and text.isdigit() and (text == "0" or text[0] != "0"))
    return _int(int(text), 0, count - 1)


def _flag(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _text(value: Any) -> str:
    _require(isinstance(value, str))
    text: str = value
    text.encode("utf-8", "surrogateescape")  # ValueError if a surrogate stands for no byte.
    return text


def _name(value: Any, most: int) -> str:
    text = _text(value)
    _require(len(text) <= most and "\0" not in text)
    return text


def _path(value: Any) -> str:
    path = _name(value, _PATH_LENGTH)
    _require(path.startswith("/"))
    return path


def _digest(value: Any) -> str:
    text = _text(value)
    _require(len(text) in (0, 64) and _HEX.issuperset(text))
    return text


def _list(value: Any, most: int) -> list[Any]:
    _require(isinstance(value, list) and len(value) <= most)
    items: list[Any] = value
    return items


def _node(value: Any) -> Node:
    device, inode = _exactly(value, 2)
    if isinstance(inode, str):
        return _int(device, 0, (1 << 64) - 1), _name(inode, MAX_PATH)
    return _int(device, 0, (1 << 64) - 1), _int(inode, 0, (1 << 64) - 1)


def _failure(value: Any) -> Failure:
    code, text = map(_text, _exactly(value, 2))
    return Failure(code if _is_code(code) else _UNKNOWN, sentence(text))


def _entry_failure(value: Any) -> Failure:
    failure = _failure(value)
    return failure if failure.code in AGENT_CODES else failure._replace(code=_UNKNOWN)


def _note(value: Any) -> Failure:
    note = _failure(value)
    _require(note.code in NOTES)
    return note


def _is_code(text: str) -> bool:
    return 1 < len(text) <= _CODE_LENGTH and _CODE.issuperset(text) and text[0].isalpha()


def _problem(value: Any) -> EntryProblem:
    path, code, text = _exactly(value, 3)
    return EntryProblem(_name(path, MAX_PATH), *_entry_failure([code, text]))


def _name_pair(value: Any) -> tuple[str, str]:
    first, second = _exactly(value, 2)
    return _name(first, MAX_PATH), _name(second, MAX_PATH)


def _exactly(value: Any, number: int) -> Iterable[Any]:
    items = _list(value, number)
    _require(len(items) == number)
    return items


FLAG = Form("true or false", _flag)
OPTIONAL_FLAG = Form("true, false or null", lambda value: None if value is None else _flag(value))
COUNT = whole(0, MOST)
#: A count, or -1 if the file system does not report it.
COUNT_OR_UNKNOWN = whole(-1, MOST)
NAME = name()
PATH = Form("an absolute path", _path)
#: A text for people.
SHOWN = Form("a text", sentence)
SHOWN_NAME: Form[str] = Form("a name", lambda value: sentence(_name(value, MAX_PATH))[:NAME_LENGTH])
DIGEST_TEXT = Form("a SHA-256 in hexadecimal digits, or nothing", _digest)
NODE = Form("device and inode", _node)
NODE_OR_NONE = Form(
    "device and inode, or nothing", lambda value: None if value == [] else _node(value)
)
#: Why a command failed; `connect.endings.error_of` judges the code.
FAILURE = Form("code and sentence", _failure)
#: What a file system does not keep.
NOTES = ("TIMES_NOT_KEPT", "TIMES_ROUNDED", "MODES_NOT_KEPT", "NO_LOCKS")
NOTE = Form("a code of a note, and a sentence", _note)
#: Why an entry failed; a code that no agent may report becomes AGENT_FAILED.
ENTRY_FAILURE = Form("code and sentence", _entry_failure)
PROBLEM = Form("path, code and sentence", _problem)
NAME_PAIR = Form("two paths", _name_pair)
