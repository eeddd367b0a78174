"""Blocks of bytes that wait: in memory while they are few, then in an unlinked temporary file."""

from __future__ import annotations

import io
from typing import BinaryIO, NamedTuple

#: Bytes that are kept in memory.
IN_MEMORY = 8 << 20


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

    def add(self, data: bytes) -> Block:
        """Keep a block."""
        if self._in_memory and self._size + len(data) > IN_MEMORY:
            self._roll_over()
        self._file.seek(self._size)
        self._file.write(data)
        block = Block(self._size, len(data))
        self._size += len(data)
        return block

    def get(self, block: Block) -> bytes:
        """A block that was added."""
        self._file.seek(block.offset)
        return self._file.read(block.size)

    def close(self) -> None:
        """Forget everything."""
        self._file.close()

    def _roll_over(self) -> None:
        import tempfile  # Large, and small transfers never need it.

        held = self._file
        held.seek(0)
        self._file = tempfile.TemporaryFile(prefix="ketter-plan-")  # noqa: SIM115 - closed with us
        self._file.write(held.read())
        self._in_memory = False
