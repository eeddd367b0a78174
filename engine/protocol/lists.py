"""Lists of entries: the limits of one that an agent sends, and parts of one that it gets."""

from __future__ import annotations

from collections.abc import Iterator

from engine.agent.wire import (
    MAX_ENTRIES,
    MAX_LINK,
    MAX_PATH,
    REPORT_WEIGHT,
    AgentError,
    Entry,
    count_of,
    pack_entries,
    unpack_entries,
)

#: The bytes of a list before its entries, and of an entry before the paths.
_HEAD_BYTES, _ENTRY_BYTES = 16, 1 + 8 + 8 + 4 + 8


def weight_of(entry: Entry) -> int:
    """Return the characters of an entry's path, link and attributes; see LIST_BYTES."""
    return len(entry.path) + len(entry.link) + len(entry.meta)


def listed(blob: bytes, most: int = MAX_ENTRIES) -> bytes:
    """Return a packed list; raises AgentError (AGENT_FAILED) if it has more than `most` entries."""
    if count_of(blob) > most:
        raise AgentError(
            "AGENT_FAILED", f"protocol error: a list of more than {most:,} entries came"
        )
    return blob


def entries_of(blob: bytes) -> list[Entry]:
    """Unpack a list that came from an agent.

    Raises AgentError (AGENT_FAILED) if it is malformed, or a path or link is longer than any.
    """
    entries = unpack_entries(listed(blob))
    if any(len(entry.path) > MAX_PATH or len(entry.link) > MAX_LINK for entry in entries):
        raise AgentError(
            "AGENT_FAILED",
            f"protocol error: a path of over {MAX_PATH:,} or a link of {MAX_LINK:,} came",
        )
    return entries


def in_parts(blob: bytes) -> Iterator[bytes]:
    """Yield a list that `unpack_entries` accepts, in parts if its paths are very long.

    A reply names each path twice at most, in JSON: of such a part it has less than 4 MiB.
    """
    at = _HEAD_BYTES + count_of(blob) * _ENTRY_BYTES
    paths = blob[at : at + int.from_bytes(blob[4:8], "little")]
    if len(paths) <= REPORT_WEIGHT or (paths.isascii() and len(paths) <= 4 * REPORT_WEIGHT):
        yield blob
        return
    part: list[Entry] = []
    weight = 0
    for entry in unpack_entries(blob):
        if part and weight + len(entry.path) > REPORT_WEIGHT // 2:
            yield pack_entries(part)
            part, weight = [], 0
        part.append(entry)
        weight += len(entry.path)
    yield pack_entries(part)
