"""The commands of a source: list the tree, send parcels, remove what was delivered."""

from __future__ import annotations

from typing import Any

from engine.agent.desk import Desk
from engine.agent.filters import Filter
from engine.agent.outlet import Outlet
from engine.agent.scan import Scanner, Wanted
from engine.agent.sender import Sender
from engine.agent.wire import Entry, pack_entries, unpack_entries

#: Entries in one answer of a scan.
BATCH = 2500


class Source:
    """A tree that is read from; a method `do_<op>` per command."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._outlet = Outlet(1, 0)
        self._sender: Sender | None = None
        self._outlet.listen = desk.listen

    def do_scan(
        self,
        filters: list[list[str]],
        symlinks: str,
        hard_links: str,
        xattrs: bool,
        mode_bits: int,
        blob: bytes,
    ) -> dict[str, Any]:
        """List the tree in batches: `entries`, lists of entries, come before the answer."""
        batch: list[Entry] = []
        failures: list[tuple[str, str, str]] = []

        def found(entry: Entry) -> None:
            batch.append(entry)
            if len(batch) == BATCH:
                self._desk.say({"entries": len(batch)}, pack_entries(batch))
                batch.clear()

        def failed(path: str, code: str, message: str) -> None:
            failures.append((path, code, message))
            if len(failures) == BATCH:
                self._desk.say({"failures": failures})
                failures.clear()

        wanted = Wanted(Filter(filters), symlinks, hard_links, xattrs, mode_bits)
        scanner = Scanner(self._desk.tree, wanted, found, failed)
        scanner.scan()
        self._desk.say({"entries": len(batch)}, pack_entries(batch))
        self._desk.say({"failures": failures})
        return {
            "hard_links": scanner.hard_links,
            "links_skipped": scanner.links_skipped,
            "blob": pack_entries([scanner.top()]),
        }

    def do_send(
        self,
        head: dict[str, Any],
        blob: bytes,
        drill: str = "",
        theirs: int = 0,
        last: bool = False,
    ) -> dict[str, Any]:
        """Send a parcel to stdout; answer with its digests.

        Behind the list of entries stands the receiver's list, of `theirs`
        bytes, if that has other names.
        """
        if self._sender is None:  # The tree is open by now, and stays so.
            self._sender = Sender(self._desk.tree, self._outlet)
        sender = self._sender
        ours, other = blob[: len(blob) - theirs], blob[len(blob) - theirs :]
        sender.send(head, ours, other, drill, last)
        return {
            "sent": head["parcel"],
            "errors": sender.errors,
            "torn": sender.torn,
            "archive": sender.archive_digest() if last else "",
            "blob": bytes(sender.digests),
        }

    def do_rate(self, rate: int, blob: bytes) -> dict[str, Any]:
        """Send on at another rate; this is done at once, also amid a parcel."""
        self._outlet.rate = rate
        return {"rated": rate}

    def do_relay(self, blob: bytes) -> dict[str, Any]:
        """Pass a command on to the receiver, in its turn among the parcels."""
        self._outlet.pass_on(blob)
        return {"relayed": 1}

    def do_remove(self, blob: bytes) -> dict[str, Any]:
        """Remove entries of the tree that have not changed."""
        from engine.agent import remove  # Compiled on the host only for a move.

        removed, kept = remove.remove_entries(self._desk.tree, unpack_entries(blob))
        return {"removed": removed, "kept": kept}

    def do_remove_folders(self, blob: bytes) -> dict[str, Any]:
        """Remove folders of the tree that are empty."""
        from engine.agent import remove

        removed, full, problems = remove.remove_folders(self._desk.tree, unpack_entries(blob))
        return {"removed": removed, "full": full, "problems": problems}
