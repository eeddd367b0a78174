"""The commands that end a transfer: publish what was staged, clean up."""

from __future__ import annotations

import stat

from engine.agent.context import Context
from engine.agent.digests import make_durable, make_tree_durable
from engine.agent.inspect import machine
from engine.agent.target import locks
from engine.agent.target.journal import Journal
from engine.agent.target.publish import delivered_archive, publisher
from engine.agent.target.publish.folders import FolderFinisher
from engine.agent.target.publish.had_before import FoldersBefore
from engine.agent.target.publish.opened_folders import OpenedFolders
from engine.agent.target.publish.refused import Refused
from engine.agent.target.staged_files import WriteOptions, discard
from engine.agent.target.staging import made_folders
from engine.agent.target.staging.folder import Staging
from engine.agent.tree import Tree, close_all
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FILE, AgentError, Entry, unpack_entries

if TYPE_CHECKING:
    from typing import Any

    from engine.agent.target.publish.across import Across


class PublishCommands:
    """The commands that end a transfer: publish the staged tree, remove the staging folder."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._staging: Staging | None = None
        self._options = WriteOptions()
        self._refused = Refused()
        self._seconds: dict[str, str] = {}

    def do_inside(self, size: int, blob: bytes) -> dict[str, Any]:
        """Record what the archive holds: a list of `size` bytes, then digests."""
        self._staged()[1].add({"inside": 1, "list": size}, blob)
        return {}

    def do_publish_archive(
        self, name: str, digest: str, policy: str, keep: bool, blob: bytes
    ) -> dict[str, Any]:
        """Put the one archive into place, unless the same archive is there already.

        With `keep` the staging folder stays until `clean`: its journal names the archive to later
        attempts.
        """
        tree, journal = self._staged()
        assert self._staging
        both, raw = policy == "keep-both", bytes.fromhex(digest)
        size = delivered_archive.size_of(tree, name)
        delivered_archive.announce(journal, [name, size, both], raw)
        with OpenedFolders(
            self._context.tree, self._staging.fd
        ) as opened, self._staging.publishing():
            self._context.check_in_place()
            readback = self._options.readback
            there = delivered_archive.find(
                self._context.tree, name, size, raw, both, self._context.read, readback
            )
            if there:
                discard(tree, Entry(name, FILE, 0, 0, 0, 0))
            else:
                self._publish(policy, opened, FoldersBefore(self._staging.fd), 1)
            reason = self._refused.reason(name)
            if reason:
                raise reason
        if not keep:
            self._remove_staging(self._staging, undo=False)
        make_durable(self._context.tree.fd)
        self._context.check_in_place()
        return {"there": there, "name": there or self._seconds.get(name, name), "size": size}

    def do_publish(self, policy: str, files: int, blob: bytes) -> dict[str, Any]:
        """Put the staged tree into place if it holds the `files` that were proven, and clean up.

        Makes everything durable first. Folders get their modes and times; so does the target
        folder, if the packed list in `blob` has an entry for it.
        """
        tree, journal = self._staged()
        assert self._staging
        make_tree_durable(tree)
        before = FoldersBefore(self._staging.fd)
        with OpenedFolders(self._context.tree, self._staging.fd) as opened:
            with self._staging.publishing():
                self._context.check_in_place()
                self._publish(policy, opened, before, files)
                elsewhere = self._staging.clear_grafts()
            finisher = FolderFinisher(self._context.tree, self._options, opened.modes, before)
            finisher.finish(journal, self._refused)
        tops = [top._replace(path="") for top in unpack_entries(blob)]
        for top in tops:
            if top.mode & stat.S_IRWXU == stat.S_IRWXU:
                # Already now: without the staging folder no later attempt would know of it.
                FolderFinisher(self._context.tree, self._options, {}, before).give(top)
        self._remove_staging(self._staging, undo=False)
        for top in tops:
            finisher.give(top)
        for fd in (self._context.tree.fd, *elsewhere):
            make_durable(fd)
        close_all(elsewhere)
        self._context.check_in_place()
        problems = finisher.problems + opened.problems
        count = finisher.problem_count + len(opened.problems)
        return {
            "problems": problems, "problem_count": count, "refused": bool(self._refused),
            "renamed": bool(self._seconds)
        }  # fmt: skip

    def _publish(
        self, policy: str, opened: OpenedFolders, before: FoldersBefore, files: int
    ) -> None:
        tree, target = self._staged()[0], self._context.tree
        assert self._staging
        where = (tree, target, policy, opened, before, self._across)
        if locks.are_missing():
            from engine.agent.target.publish.guarded import GuardedPublisher

            place: publisher.Publisher = GuardedPublisher(self._staging.refuse_replaced, *where)
        else:
            place = publisher.Publisher(*where)
        self._refused, self._seconds = place.refused, place.seconds
        place.publish(files)

    def _across(self) -> Across:
        from engine.agent.target.publish.across import Across  # Only where a rename is refused.

        assert self._staging
        staging = self._staging
        return Across(staging.fd, staging.transfer_id, self._options.readback, self._context.read)

    def do_unpublished(self, blob: bytes) -> dict[str, Any]:
        """Name the entries that could not take their place, and those that got a second name."""
        kept, names = [], []
        for entry in unpack_entries(blob):
            reason = self._refused.reason(entry.path)
            if reason:
                kept.append([entry.path, reason.code, str(reason)])
            elif entry.path in self._seconds:
                names.append([entry.path, self._seconds[entry.path]])
        return {"kept": kept, "names": names}

    def do_adjust(self, mode_bits: int, blob: bytes) -> dict[str, Any]:
        """Give files that the target had the modes of these entries; see `modes.adjust`."""
        from engine.agent.target.publish import modes  # Only a transfer that has such files.

        problems, count = modes.adjust(self._context.tree, unpack_entries(blob), mode_bits)
        return {"problems": problems, "problem_count": count}

    def do_leave(self, blob: bytes) -> dict[str, Any]:
        """Close all open files of the staging folder, so that another agent can remove it."""
        if self._staging:
            self._staging.leave()
        return {}

    def do_clean(
        self, transfer_id: str, attempt: int, undo: bool, blob: bytes, spare_id: str = ""
    ) -> dict[str, Any]:
        """Remove the staging folder; with `undo` also the folders made for it, if empty."""
        if self._staging:
            self._remove_staging(self._staging, undo)
            return {}
        for name in filter(None, (spare_id, transfer_id)):
            staging = Staging(self._context.tree.fd, name, attempt, machine(), spare_id)
            if staging.is_used():
                self._remove_staging(staging, undo)
        return {}

    def _remove_staging(self, staging: Staging, undo: bool) -> None:
        made = staging.remove()
        self._staging = None
        if undo:
            made_folders.remove(made, self._context.real)

    def _staged(self) -> tuple[Tree, Journal]:
        return place_of(self._staging)


def place_of(staging: Staging | None) -> tuple[Tree, Journal]:
    """The tree and the journal of an attempt; raises AGENT_FAILED if there is none."""
    if staging is None or staging.tree is None or staging.journal is None:
        raise AgentError(
            "AGENT_FAILED", "protocol error: a command came that needs a `stage` before it"
        )
    return staging.tree, staging.journal
