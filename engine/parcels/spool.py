"""Spool: keeps blocks of bytes in memory while they are few, then in an unlinked temporary file."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from engine import errors
from engine.agent.typed import NamedTuple

#: Bytes that are kept in memory, at most.
IN_MEMORY = 8 << 20
#: A spool takes so much of the temporary folder's free space, at most: a host that lists entries
#: without end must not fill it.
PART_OF_FREE_SPACE = 0.5


class Block(NamedTuple):
    """Where a block lies in its spool."""

    offset: int
    size: int


class Spool:
    """An append-only store, so that a plan of a million entries costs no memory."""

    def __init__(self) -> None:
        self._file: BinaryIO = io.BytesIO()
        self._in_memory = True
        self._size = 0
        self._most = 0

    def add(self, data: bytes) -> Block:
        """Keep a block; return where it lies.

        Raises HostTrouble if the temporary folder has not the room for it.
        """
        if self._in_memory and self._size + len(data) > IN_MEMORY:
            self._roll_over()
        if not self._in_memory and self._size + len(data) > self._most:
            raise errors.HostTrouble(
                f"the list of the entries takes more than {self._most:,} bytes, half of what was "
                "free in the temporary folder of this machine: make room there, name another "
                "folder in TMPDIR, or see if a host lists entries without end"
            )
        self._file.seek(self._size)
        self._file.write(data)
        block = Block(self._size, len(data))
        self._size += len(data)
        return block

    def get(self, block: Block) -> bytes:
        """Return a block that was added."""
        self._file.seek(block.offset)
        return self._file.read(block.size)

    def close(self) -> None:
        """Drop all blocks."""
        self._file.close()

    def _roll_over(self) -> None:
        import tempfile  # A large import that small transfers never need.

        in_memory = self._file
        in_memory.seek(0)
        self._file = tempfile.TemporaryFile(prefix="ketter-plan-")  # noqa: SIM115 - see `close`
        space = os.fstatvfs(self._file.fileno())
        # Some file systems (ramfs) do not report their space: there only the disk is the limit.
        free = space.f_bavail * space.f_frsize if space.f_blocks else 1 << 63
        self._most = int(free * PART_OF_FREE_SPACE)
        self._file.write(in_memory.read())
        self._in_memory = False
