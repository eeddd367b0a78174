"""Reads a place again, and compares it with a manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from engine import errors
from engine.agent.wire import NO_DIGEST, Entry, pack_entries
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.proof import manifest_file
from engine.protocol.commands import HASH, OPEN
from engine.protocol.digests import digest_at, require_digests
from engine.session.places import inspect, named
from engine.types import Endpoint, EntryFailure, display_path

#: Entries in one HASH command.
BATCH = 1000
#: Differences that are listed one by one, at most.
LISTED = 1000


@dataclass
class Verdict:
    """How a place compares with a manifest; `bytes` are those that were read."""

    entries: int = 0
    bytes: int = 0
    different: int = 0
    differences: list[EntryFailure] = field(default_factory=list)

    def differs(self, path: str, code: str, sentence: str) -> None:
        """Record a difference."""
        self.different += 1
        if len(self.differences) < LISTED:
            self.differences.append(EntryFailure(display_path(path), code, sentence))


@errors.on_this_machine()
def verify(manifest: Path, at: Endpoint) -> Verdict:
    """Read every entry of a manifest at a place from the medium and compare its SHA-256.

    The manifest is JSON lines as `manifest.line` writes them, plain or
    compressed with zlib. Of what an archive holds only the archive itself is read. Other entries
    at the place are ignored. Raises BadRequest
    if the manifest cannot be read, and ConnectError as a transfer does.
    """
    verdict = Verdict()
    inbox = Inbox(lambda: None)
    try:
        listed = (each for each in manifest_file.read(manifest) if not each.archive)
        agent = AgentProcess(inbox, at)
        agent.send_program()
        agent.greet()
        found = inspect(agent, at)
        if found.kind != "folder":
            raise errors.BadRequest(
                f"{found.shown} is not a folder; name the folder in which the delivery stands"
            )
        agent.request(OPEN, **named(at))
        while batch := list(islice(listed, BATCH)):
            _compare(agent, batch, verdict)
        if not verdict.entries:
            raise errors.BadRequest(
                f"{manifest} names what an archive holds, but no archive: unpack the archive, and "
                "compare with a manifest of a transfer without --strategy archive"
            )
    finally:
        inbox.close()
    return verdict


def _compare(agent: AgentProcess, batch: list[manifest_file.Listed], verdict: Verdict) -> None:
    # A further name of a file has the file's content; the manifest names only the first name.
    entries = [Entry(listed.path, listed.kind, listed.size, 0, 0, 0) for listed in batch]
    found = require_digests(agent.request(HASH, pack_entries(entries)), len(entries))
    for index, (listed, entry) in enumerate(zip(batch, entries, strict=True)):
        digest = digest_at(found.digests, index)
        verdict.entries += 1
        verdict.bytes += entry.size
        shown = display_path(entry.path)
        if digest == NO_DIGEST:
            verdict.differs(entry.path, "VANISHED", f"{shown} is missing or cannot be read")
        elif digest.hex() != listed.sha256:
            sentence = f"the content of {shown} differs from the manifest"
            verdict.differs(entry.path, "CHECKSUM_MISMATCH", sentence)
