"""Output for a person: a closed terminal or a full disk does not end a transfer."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys

#: Around what is only shown. What a user names (`--manifest`) must not fail unseen.
OUTPUT_MAY_FAIL = contextlib.suppress(OSError, ValueError)


def take_bytes_as_they_are() -> None:
    """Begin once more in Python's UTF-8 mode, unless it is on: it keeps each byte of an argument.

    Agents take a path's text as UTF-8. In another locale's encoding it would name another file.
    """
    is_utf8 = codecs.lookup(sys.getfilesystemencoding()).name == "utf-8"
    if is_utf8 or "utf8" in sys._xoptions or not sys.executable:
        return
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def prepare_streams() -> None:
    """Have each stream there, and able to print any name: what it has no code for is escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # Closed when this process began.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_encoding(stream), errors="backslashreplace")


def _encoding(stream: io.TextIOWrapper) -> str:
    """Return the encoding that the locale prescribes: UTF-8 mode leaves that out."""
    if not sys.flags.utf8_mode or os.environ.get("PYTHONIOENCODING"):
        return stream.encoding
    from _locale import CODESET, nl_langinfo

    try:
        return codecs.lookup(nl_langinfo(CODESET)).name
    except LookupError:
        return stream.encoding


def is_plain_terminal() -> bool:
    """True if the terminal understands no control sequences."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")
