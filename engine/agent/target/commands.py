"""The commands of a target: take parcels in, publish them, clean up."""

from __future__ import annotations

import os
import stat
import struct
from collections import deque
from typing import Any

from engine.agent import delivered, publish
from engine.agent.archive import ArchiveFile
from engine.agent.desk import Desk
from engine.agent.finish import Finisher, give
from engine.agent.inlet import Inlet
from engine.agent.journal import Journal
from engine.agent.look import machine, neighbour
from engine.agent.receiver import Receiver, Ways
from engine.agent.stage import (
    digest_file,
    digests_of,
    discard,
    made_as,
    make_durable,
    refuse_shared,
)
from engine.agent.staging import Staging
from engine.agent.tree import Tree
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


class Target:
    """A tree that is written to; a method `do_<op>` per command."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._staging: Staging | None = None
        self._ways = Ways()
        self._archive: ArchiveFile | None = None
        self._parcel = 0
        #: The heads of parcels that the worker has announced, where it announces them.
        self._expected: deque[dict[str, Any]] | None = None

    def _progress(self, done: int) -> None:
        self._desk.progress(done, self._parcel)

    def do_compare(self, keep_both: bool, by_content: bool, blob: bytes) -> dict[str, Any]:
        """What the tree holds where the entries would go; see `publish.compare`."""
        states, others = publish.compare(
            self._desk.tree, unpack_entries(blob), keep_both, by_content
        )
        return {"states": states, "others": others}

    def do_stage(
        self,
        root: str,
        path: str,
        transfer_id: str,
        attempt: int,
        ways: list[bool],
        blob: bytes,
        attach: bool = False,
        resume: bool = False,
        announced: bool = False,
        label: str = "",
        beside: tuple[int, str] = (0, ""),
    ) -> dict[str, Any]:
        """Make and open the target folder and prepare the staging folder in it.

        Or, with `attach`, join the agent that has prepared it, as the helper of
        that `label` if it belongs to another worker. With `resume`
        what is left of an earlier attempt is told first. `fresh` says that the
        target folder was made for this transfer. If parcels are `announced`, by
        `expect`, no others are taken. `beside` see `neighbour`.
        """
        if self._desk.is_forsaken():
            raise EndOfStream
        self._desk.watch(neighbour(*beside))
        made = self._desk.open(root, path, make=not attach)
        if announced:
            self._expected = deque()
        self._ways = Ways(*ways)
        staging = Staging(self._desk.tree.fd, transfer_id, attempt, machine())
        left = False
        if attach:
            staging.attach(label)
        else:
            made, left = staging.prepare(made, resume)
        tree, journal = _place_of(staging)
        self._ways = self._ways._replace(made_as=made_as(staging.fd))
        # Only now: what comes behind a command that has failed must not be taken.
        self._staging = staging
        self._desk.is_over = staging.is_over
        if left:
            from engine.agent.resume import Survey

            for told in delivered.recall(journal, tree, self._desk.tree, self._desk.read):
                self._desk.say(*told)
            Survey(tree, journal).take_up(self._desk.say)
        journal.keep_durable(lambda: make_durable(tree.fd))
        return {"fresh": self._desk.real in made, "left": left}

    def do_names(self, blob: bytes) -> dict[str, Any]:
        """What names the target can hold, found by trying in the staging folder."""
        from engine.agent.names import probe

        return {"rules": list(probe(self._staged()[0].fd))}

    def do_check(self, blob: bytes) -> dict[str, Any]:
        """The digests of staged entries as the medium has them."""
        tree, _ = self._staged()
        make_durable(tree.fd)  # Else they would be read from memory again.
        return {"blob": digests_of(self._desk, tree, blob)[1]}

    def do_expect(self, head: dict[str, Any], digest: str, blob: bytes) -> dict[str, Any]:
        """Announce a parcel: it has this head and list."""
        if self._expected is not None:
            self._expected.append({**head, "list": digest})
        return {"expected": head["parcel"]}

    def _refuse_unexpected(self, head: dict[str, Any]) -> None:
        if self._expected is not None:
            said = {name: value for name, value in head.items() if name != "blob"}
            wanted = self._expected.popleft() if self._expected else {}
            if wanted != {**said, "list": list_digest(head["blob"])}:
                raise AgentError("AGENT_FAILED", "a parcel came that the worker did not announce")

    def receive(self, inlet: Inlet, head: dict[str, Any]) -> None:
        """Receive a parcel into the staging folder; say the digests of what was written."""
        tree, journal = self._staged()
        receiver = Receiver(tree, self._desk.tree, journal, self._ways, self._progress)
        try:
            self._refuse_unexpected(head)
            self._parcel = head["parcel"]
            if head["kind"] == "archive":
                if self._archive is None:
                    self._archive = ArchiveFile(tree, head["name"], self._progress)
                self._archive.receive(inlet, head)
            else:
                receiver.receive(inlet, head)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, struct.error) as error:
            # It is the sender's word: what makes no sense is its fault.
            self._desk.say({"error": ["AGENT_FAILED", f"a parcel makes no sense: {error!r:.200}"]})
            raise EndOfStream from error
        except (AgentError, OSError) as error:
            # What is left of the payload cannot be told from commands: this agent is done.
            problem = error
            if isinstance(error, OSError):
                problem = explain(error, self._desk.real)
            assert isinstance(problem, AgentError)
            self._desk.say({"error": [problem.code, str(problem)]})
            raise EndOfStream from error
        answer = {
            "got": self._parcel,
            "list": list_digest(head["blob"]),
            "errors": receiver.errors,
            "refused": receiver.refused,
            "refusals": receiver.refusals,
        }
        self._desk.say({"done": answer}, bytes(receiver.digests))

    def do_discard(self, blob: bytes) -> dict[str, Any]:
        """Take entries out of the staging folder again."""
        tree, journal = self._staged()
        entries = unpack_entries(blob)
        journal.add({"void": [entry.path for entry in entries]})
        # What is in a folder before the folder, in whatever order they were named.
        for entry in sorted(entries, key=lambda entry: -entry.path.count("/")):
            if entry.kind != FOLDER:
                discard(tree, entry)
                continue
            tree.forget()
            try:
                folder, name = tree.parent(entry.path)
                os.rmdir(name, dir_fd=folder)
            except OSError:
                continue  # Something in it is still wanted.
        return {"discarded": len(entries)}

    def do_shut_out(self, label: str, blob: bytes) -> dict[str, Any]:
        """Shut a helper out, and take out again what it was to bring: its proof is not known."""
        self._staged()
        assert self._staging
        self._staging.shut_out(label)
        self.do_discard(blob)
        return {"shut_out": label}

    def do_complete(self, whole: str, blob: bytes) -> dict[str, Any]:
        """Finish a file that came in slices: its mode and time; answer with its digest."""
        tree, journal = self._staged()
        (entry,) = unpack_entries(blob)
        if self._ways.readback:
            make_durable(tree.fd)
        digest = digest_file(tree, entry, self._desk.read, medium=self._ways.readback)
        folder, name = tree.parent(entry.path)
        fd = refuse_shared(os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder))
        try:
            if os.fstat(fd).st_size != entry.size:
                raise AgentError("CHECKSUM_MISMATCH", f"{show(entry.path)} has a wrong size")
            give(fd, entry, self._ways)
        finally:
            os.close(fd)
        journal.add({"parcel": 0, "list": len(blob)}, blob + digest)
        return {"whole": whole, "blob": digest}

    def do_close_archive(self, path: str, blob: bytes) -> dict[str, Any]:
        """End the archive that came in; answer with the SHA-256 of what is there."""
        if self._archive is None:
            raise AgentError("AGENT_FAILED", "no archive came")
        digest, self._archive = self._archive.close(), None
        if self._ways.readback:
            tree, _ = self._staged()
            make_durable(tree.fd)
            entry = Entry(path, FILE, 0, 0, 0, 0)
            digest = digest_file(tree, entry, self._desk.read, medium=True).hex()
        return {"archive": digest}

    def do_inside(self, size: int, blob: bytes) -> dict[str, Any]:
        """Put down what the archive holds: a list of that size, and digests."""
        self._staged()[1].add({"inside": 1, "list": size}, blob)
        return {}

    def do_publish_archive(
        self, name: str, digest: str, policy: str, keep: bool, blob: bytes
    ) -> dict[str, Any]:
        """Put the one archive into place, unless the same is there already.

        With `keep` the staging folder stays until `clean`, with the journal that
        tells later attempts of the archive.
        """
        tree, journal = self._staged()
        assert self._staging
        both, raw = policy == "keep-both", bytes.fromhex(digest)
        size = delivered.size_of(tree, name)
        delivered.announce(journal, [name, size, both], raw)
        with self._staging.publishing():
            there = delivered.find(
                self._desk.tree, name, size, raw, both, self._desk.read, self._ways.readback
            )
            if there:
                discard(tree, Entry(name, FILE, 0, 0, 0, 0))
            else:
                publish.Publisher(tree, self._desk.tree, policy).publish(1)
        if not keep:
            self._remove_staging(self._staging, undo=False)
        make_durable(self._desk.tree.fd)
        return {"there": there}

    def do_publish(self, policy: str, files: int, blob: bytes) -> dict[str, Any]:
        """Put the staged tree into place, if it holds all that was proven, and clean up.

        Everything is made durable first; folders get their modes and times,
        the target folder too if there is an entry for it.
        """
        tree, journal = self._staged()
        assert self._staging
        make_durable(tree.fd)
        with self._staging.publishing():
            publish.Publisher(tree, self._desk.tree, policy).publish(files)
        finisher = Finisher(self._desk.tree, self._ways)
        finisher.finish(journal)
        tops = [top._replace(path="") for top in unpack_entries(blob)]
        for top in tops:
            if top.mode & stat.S_IRWXU == stat.S_IRWXU:
                # Already now: without the staging folder no later attempt would know of it.
                Finisher(self._desk.tree, self._ways).give(top)
        self._remove_staging(self._staging, undo=False)
        for top in tops:
            finisher.give(top)
        make_durable(self._desk.tree.fd)
        return {"problems": finisher.problems, "problem_count": finisher.problem_count}

    def do_clean(self, transfer_id: str, attempt: int, undo: bool, blob: bytes) -> dict[str, Any]:
        """Remove the staging folder; with `undo` also the folders made for it, if empty."""
        staging = self._staging or Staging(self._desk.tree.fd, transfer_id, attempt, machine())
        self._remove_staging(staging, undo)
        return {}

    def _remove_staging(self, staging: Staging, undo: bool) -> None:
        made = staging.remove()
        self._staging = None
        for folder in reversed(made if undo else []):
            try:
                os.rmdir(folder)
            except OSError:
                break  # Something is in it: it is not ours to remove any more.

    def _staged(self) -> tuple[Tree, Journal]:
        return _place_of(self._staging)


def _place_of(staging: Staging | None) -> tuple[Tree, Journal]:
    if staging is None or staging.tree is None or staging.journal is None:
        raise AgentError("AGENT_FAILED", "nothing is staged")
    return staging.tree, staging.journal
