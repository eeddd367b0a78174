"""The commands of a target: take parcels in, publish them, clean up."""

from __future__ import annotations

import os
import struct
from collections import deque

from engine.agent.context import Context
from engine.agent.digests import UNKNOWN, digest_file, digests_of, make_tree_durable
from engine.agent.inspect import machine, sibling_pid
from engine.agent.reader import FrameReader
from engine.agent.target.archive_file import ArchiveFile
from engine.agent.target.journal import Journal
from engine.agent.target.ownership import not_ours
from engine.agent.target.publish import delivered_archive
from engine.agent.target.publish.commands import PublishCommands, place_of
from engine.agent.target.publish.opened_folders import make_readable
from engine.agent.target.receiver import Receiver
from engine.agent.target.staged_files import (
    EntryWriter,
    WriteOptions,
    discard,
    made_as,
    refuse_shared,
)
from engine.agent.target.staging import kept
from engine.agent.target.staging.folder import Staging
from engine.agent.tree import Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    FILE,
    FOLDER,
    AgentError,
    EndOfStream,
    Entry,
    explain,
    list_digest,
    show,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Any

#: Flags to open a staged file for a second writing.
_STAGED = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: The most folders that were made for a target folder, of which a reply names the first.
_NAMED = 20


class Target(PublishCommands):
    """All commands of a target, a method `do_<op>` each; and `receive`, for a parcel."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._archive: ArchiveFile | None = None
        self._parcel = 0
        #: The heads of the parcels that the worker has announced; None if it announces none.
        self._expected: deque[dict[str, Any]] | None = None

    def _progress(self, done: int) -> None:
        self._context.progress(done, self._parcel)

    def do_stage(
        self,
        root: str,
        path: str,
        transfer_id: str,
        attempt: int,
        options: dict[str, bool],
        blob: bytes,
        attach: bool = False,
        resume: bool = False,
        announced: bool = False,
        label: str = "",
        sibling: tuple[int, str] = (0, ""),
        spare_id: str = "",
    ) -> dict[str, Any]:
        """Make and open the target folder, and prepare the staging folder in it.

        With `attach`, use the staging folder that another agent has prepared; with a `label`, as
        the agent of that helper. With `resume`, first report what an earlier attempt left. With
        `announced`, refuse parcels that no `expect` announced. For `options` see WriteOptions, for
        `sibling` see `sibling_pid`, for `spare_id` see `Staging`. The reply's `made` are the first
        folders made on the way there, `fresh` says that the target folder is one of them.
        """
        self._context.end_if_alone()
        self._context.watch_sibling(sibling_pid(*sibling))
        made = self._context.open(root, path, make=not attach)
        make_readable(self._context.tree)
        if announced:
            self._expected = deque()
        staging = Staging(self._context.tree.fd, transfer_id, attempt, machine(), spare_id)
        folders, left = ([], False) if attach else staging.prepare(made, resume)
        self._options = WriteOptions(**options, made_as=made_as(staging.fd))
        if attach:
            staging.attach(label)
        self._use_other_systems(staging, [] if attach else self._context.mounts)
        tree, journal = place_of(staging)
        # Only now: this agent must take nothing that comes behind a `stage` that has failed.
        self._staging, self._context.is_over = staging, staging.is_over
        if left:
            self._report_left(staging.keeps_owners, tree, journal)
        journal.keep_durable(lambda: make_tree_durable(tree))
        return {
            "fresh": self._context.real in [folder.path for folder in folders],
            "left": left,
            "transfer_id": staging.transfer_id,
            "keeps_owners": staging.keeps_owners,
            "notes": [] if attach else kept.notes(staging.fd),
            "made": [show(folder.path) for folder in folders[:_NAMED]],
        }

    def _use_other_systems(self, staging: Staging, mounts: list[str]) -> None:
        """Have what goes below folders on other file systems wait there, where that is possible."""
        tree, _ = place_of(staging)

        def graft(path: str) -> None:
            from engine.agent.target.staging import grafts  # Few targets have such a folder.

            if not (tree.grafts and path in tree.grafts):
                grafts.make(self._context.tree.fd, staging.fd, tree, path, staging.name)
            # What a mode becomes was tried in the staging folder only.
            self._options = self._options._replace(made_as=0)

        self._context.on_mount = graft
        for path in mounts:
            graft(path)
        if tree.grafts:
            self._options = self._options._replace(made_as=0)

    def _report_left(self, keeps_owners: bool, tree: Tree, journal: Journal) -> None:
        """Report to the worker what an earlier attempt left."""
        from engine.agent.target.resume import Survey

        try:
            for message in delivered_archive.recall(
                journal, tree, self._context.tree, self._context.read
            ):
                if not keeps_owners:
                    # Another user may have written the list, and the archive: they are no proof
                    # on which a file may be removed at the source.
                    raise not_ours("journal", "in the staging folder names a delivered archive")
                self._context.send(*message)
            Survey(tree, journal).take_up(self._context.send)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise not_ours("journal", "in the staging folder is none of Ketter's") from error

    def do_names(self, blob: bytes) -> dict[str, Any]:
        """Try in the staging folder which names the target can hold."""
        from engine.agent.target.name_rules import probe

        return {"rules": list(probe(self._staged()[0].fd))}

    def do_check(self, blob: bytes) -> dict[str, Any]:
        """Return the digests of staged entries as the medium holds them."""
        tree, _ = self._staged()
        make_tree_durable(tree)  # Otherwise the page cache would answer for the medium.
        return {"blob": digests_of(self._context, tree, blob)[1]}

    def do_expect(self, head: dict[str, Any], digest: str, blob: bytes) -> dict[str, Any]:
        """Announce a parcel with this head, whose list has this digest."""
        if self._expected is not None:
            self._expected.append({**head, "list": digest})
        return {"expected": head["parcel"]}

    def _refuse_unexpected(self, head: dict[str, Any]) -> None:
        """Raise AGENT_FAILED if a parcel is not the one that the worker announced."""
        if self._expected is not None:
            found = {name: value for name, value in head.items() if name != "blob"}
            wanted = self._expected.popleft() if self._expected else {}
            if wanted != {**found, "list": list_digest(head["blob"])}:
                number = head.get("parcel")
                raise AgentError(
                    "AGENT_FAILED", f"parcel {number!r:.20} came, which the worker did not announce"
                )

    def receive(self, reader: FrameReader, head: dict[str, Any]) -> None:
        """Receive a parcel into the staging folder; report the digests of what was written.

        Raises EndOfStream if a parcel is refused: this agent cannot distinguish the rest of its
        payload from commands, so it must end.
        """
        tree, journal = self._staged()
        receiver = Receiver(tree, self._context.tree, journal, self._options, self._progress)
        try:
            self._refuse_unexpected(head)
            self._parcel = head["parcel"]
            if head["kind"] == "archive":
                if self._archive is None:
                    self._archive = ArchiveFile(tree, head["name"], self._progress)
                self._archive.receive(reader, head)
            else:
                receiver.receive(reader, head)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, struct.error) as error:
            # The sender wrote the parcel: a form that makes no sense is the sender's fault.
            sentence = f"protocol error: a parcel of an impossible form came: {error!r:.200}"
            self._context.send({"error": ["AGENT_FAILED", sentence]})
            raise EndOfStream from error
        except (AgentError, OSError) as error:
            problem = error
            if isinstance(error, OSError):
                problem = explain(error, self._context.real)
            assert isinstance(problem, AgentError)
            self._context.send({"error": [problem.code, str(problem)]})
            raise EndOfStream from error
        answer = {
            "got": self._parcel,
            "list": list_digest(head["blob"]),
            "errors": receiver.errors,
            "refused": receiver.writer.refused,
            "refusals": receiver.writer.refusals,
        }
        self._context.send({"done": answer, "op": "receive"}, bytes(receiver.digests))

    def do_discard(self, blob: bytes) -> dict[str, Any]:
        """Remove entries from the staging folder, and record that."""
        tree, journal = self._staged()
        entries = unpack_entries(blob)
        journal.void([entry.path for entry in entries])
        # Deepest first, so that a folder comes after what is in it.
        for entry in sorted(entries, key=lambda entry: -entry.path.count("/")):
            if entry.kind != FOLDER:
                discard(tree, entry)
                continue
            tree.forget()
            try:
                folder, name = tree.parent(entry.path)
                os.rmdir(name, dir_fd=folder)
            except OSError:
                continue  # It holds entries that are still wanted.
        return {"discarded": len(entries)}

    def do_fence_out(self, label: str, blob: bytes) -> dict[str, Any]:
        """Fence a helper out, and remove the entries of its parcel: their proof is not known."""
        self._staged()
        assert self._staging
        self._staging.fence_out(label)
        self.do_discard(blob)
        return {"fence_out": label}

    def do_complete(self, whole: str, blob: bytes) -> dict[str, Any]:
        """Give a file that came in slices its mode and time; return its digest."""
        tree, journal = self._staged()
        (entry,) = unpack_entries(blob)
        if self._options.readback:
            make_tree_durable(tree)
        digest = digest_file(tree, entry, self._context.read, medium=self._options.readback)
        folder, name = tree.parent(entry.path)
        fd = refuse_shared(os.open(name, _STAGED, dir_fd=folder))
        try:
            size = os.fstat(fd).st_size
            if size != entry.size:
                raise AgentError(
                    "CHECKSUM_MISMATCH",
                    f"{show(entry.path)} has {size} bytes in the staging folder, and "
                    f"{entry.size} at the source",
                )
            EntryWriter(tree, self._context.tree, self._options).finish(fd, entry)
        finally:
            os.close(fd)
        journal.add({"parcel": 0, "list": len(blob)}, blob + digest)
        return {"whole": whole, "blob": digest}

    def do_close_archive(self, path: str, blob: bytes) -> dict[str, Any]:
        """End the archive that came in; return the SHA-256 of its bytes."""
        if self._archive is None:
            raise AgentError(
                "AGENT_FAILED", "protocol error: no parcel of an archive came before its end"
            )
        digest, self._archive = self._archive.close(), None
        if self._options.readback:
            tree, _ = self._staged()
            make_tree_durable(tree)
            entry = Entry(path, FILE, UNKNOWN, 0, 0, 0)
            digest = digest_file(tree, entry, self._context.read, medium=True).hex()
        return {"archive": digest}
