"""The commands of a source: list the tree, send parcels, remove delivered entries."""

from __future__ import annotations

from engine.agent.context import Context
from engine.agent.source.filters import Filter
from engine.agent.source.paced_writer import FrameWriter
from engine.agent.source.scan import Scanner, Wanted
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import LIST_BYTES, REPORT_WEIGHT, Entry, pack_entries, unpack_entries

if TYPE_CHECKING:
    from typing import Any

    from engine.agent.source.sender import Sender

#: The most entries in one message of a scan.
BATCH = 2500


class Source:
    """All commands of a source, a method `do_<op>` each."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._writer = FrameWriter(1, 0)
        self._sender: Sender | None = None
        self._writer.listen = context.listen
        context.waits = lambda: self._writer.waits

    def do_scan(
        self,
        filters: list[list[str]],
        symlinks: str,
        hard_links: str,
        xattrs: bool,
        mode_bits: int,
        blob: bytes,
    ) -> dict[str, Any]:
        """List the tree: batches of entries and of failures come before the reply."""
        batch: list[Entry] = []
        failures: list[tuple[str, str, str]] = []
        weight = failed_weight = 0

        def found(entry: Entry) -> None:
            nonlocal weight
            batch.append(entry)
            weight += len(entry.path) + len(entry.link) + len(entry.meta)
            if len(batch) == BATCH or weight >= LIST_BYTES:
                self._context.send({"entries": len(batch)}, pack_entries(batch))
                batch.clear()
                weight = 0

        def failed(path: str, code: str, message: str) -> None:
            nonlocal failed_weight
            failures.append((path, code, message))
            failed_weight += len(path) + len(message)
            if len(failures) == BATCH or failed_weight >= REPORT_WEIGHT:
                self._context.send({"failures": failures})
                failures.clear()
                failed_weight = 0

        wanted = Wanted(Filter(filters), symlinks, hard_links, xattrs, mode_bits)
        scanner = Scanner(self._context.tree, wanted, found, failed)
        scanner.scan()
        self._context.send({"entries": len(batch)}, pack_entries(batch))
        self._context.send({"failures": failures})
        return {
            "hard_links": scanner.hard_links,
            "links_skipped": scanner.links_skipped,
            "links_unknown": scanner.links_unknown,
            "holes": scanner.holes,
            "blob": pack_entries([scanner.top()]),
        }

    def do_send(
        self,
        head: dict[str, Any],
        blob: bytes,
        inject_fault: str = "",
        theirs: int = 0,
        last: bool = False,
    ) -> dict[str, Any]:
        """Send a parcel to stdout; return its digests.

        If the receiver has other names for the entries, its own list stands behind the list in
        `blob`, and has `theirs` bytes.
        """
        if self._sender is None:  # The tree is open by now, and stays open.
            from engine.agent.source.sender import Sender  # It loads OpenSSL, which takes 5 ms.

            self._sender = Sender(self._context.tree, self._writer)
        sender = self._sender
        ours, other = blob[: len(blob) - theirs], blob[len(blob) - theirs :]
        sender.send(head, ours, other, inject_fault, last)
        return {
            "sent": head["parcel"],
            "errors": sender.errors,
            "torn": sender.torn,
            "archive": sender.archive_digest() if last else "",
            "blob": bytes(sender.digests),
        }

    def do_rate(self, rate: int, blob: bytes) -> dict[str, Any]:
        """Change the rate (bytes per second); takes effect at once, even during a parcel."""
        self._writer.rate = rate
        return {"rated": rate}

    def do_relay(self, blob: bytes) -> dict[str, Any]:
        """Pass a command on to the receiver, in its turn among the parcels."""
        self._writer.pass_on(blob)
        return {"relayed": 1}

    def do_remove(self, blob: bytes) -> dict[str, Any]:
        """Remove entries of the tree that have not changed since the scan."""
        from engine.agent.source import remove  # The host compiles it only for a move.

        removed, kept = remove.remove_entries(self._context.tree, unpack_entries(blob))
        return {"removed": removed, "kept": kept}

    def do_remove_folders(self, blob: bytes) -> dict[str, Any]:
        """Remove folders of the tree that are empty."""
        from engine.agent.source import remove

        removed, full, problems = remove.remove_folders(self._context.tree, unpack_entries(blob))
        return {"removed": removed, "full": full, "problems": problems}
