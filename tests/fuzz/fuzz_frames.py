"""Fuzz the parsers: lists, messages, frames, attributes, journals, an agent's answers.

See README.md.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped] # in a venv of its own, see README.md

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["engine"]):
    from engine.agent import wire, xattrs
    from engine.agent.target.resume import Survey
    from engine.agent.tree import Tree

from tests.fuzz.corpus import (
    FRAMES,
    JOURNALS,
    LINKS,
    LISTS,
    MESSAGES,
    PARSERS,
    RECORDS,
    XATTRS,
    journal_of,
)
from tests.rig import answers, hostile
from tests.rig.frames import read_frame

_known: set[str] = set()


def tell(ended: str) -> None:
    """Print a known exception the first time it is met."""
    if ended.startswith("known") and ended not in _known:
        _known.add(ended)
        print(ended, file=sys.stderr, flush=True)


def _list(data: bytes) -> None:
    """What is taken as a list is one: packed again, it says the same."""
    with contextlib.suppress(wire.AgentError):
        entries = wire.unpack_entries(data)
        assert wire.unpack_entries(wire.pack_entries(entries)) == entries


def _frames(data: bytes) -> None:
    stream = io.BytesIO(data)

    def read() -> None:
        while True:
            _, body = read_frame(stream)
            wire.decode(body)

    tell(hostile.ending(read))


def _journal(data: bytes) -> None:
    root = Path(tempfile.mkdtemp(prefix="ketter-fuzz-", dir=FOLDER))
    fd, journal = hostile.garbage_journal(root / "staging", data)
    os.makedirs(root / "staging" / "a1" / "d")
    (root / "staging" / "a1" / "a").write_bytes(b"x")
    tree = Tree(os.open(root / "staging" / "a1", os.O_RDONLY))
    try:
        survey = Survey(tree, journal)
        tell(hostile.ending(lambda: survey.take_up(lambda *_: None), hostile.OF_A_JOURNAL))
        assert sorted(os.listdir(root / "staging")) == ["a1", "journal"]
    finally:
        journal.close()
        tree.close()
        os.close(fd)
        shutil.rmtree(root)


def one(data: bytes) -> None:
    """Feed one input to the parser that its first byte names."""
    which, data = data[0] % len(PARSERS) if data else LISTS, data[1:]
    if which == LISTS:
        _list(data)
    elif which == MESSAGES:
        tell(hostile.ending(lambda: wire.decode(data)))
    elif which == FRAMES:
        _frames(data)
    elif which == XATTRS:
        tell(hostile.ending(lambda: xattrs.decode(data)))
    elif which == JOURNALS:
        _journal(data)
    elif which == RECORDS:
        _journal(journal_of(data))
    elif which == LINKS:
        tell(answers.heard(data))


if __name__ == "__main__":
    FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
