"""Frames of the wire, read one by one, as a test reads what an agent wrote."""

from __future__ import annotations

from typing import BinaryIO

from engine.agent import wire
from engine.connect.listener import read_exactly


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes]:
    """Read the next frame's type and body."""
    kind, size = wire.check_header(*wire.HEADER.unpack(read_exactly(stream, wire.HEADER.size)))
    return kind, read_exactly(stream, size)
