"""StagingFolder: the transfer's staging folder at the target, as the worker names and makes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine import errors
from engine.agent.wire import staging_name
from engine.protocol.commands import CLEAN, STAGE, STAT
from engine.protocol.messages import DeliveredArchive, Done, StagedEntries, StagedParts
from engine.protocol.target_replies import StageReply
from engine.session.places import named
from engine.types import OPTIONS, Endpoint, Verify

if TYPE_CHECKING:
    from engine.session.session import Session

#: The messages in which the target reports what an earlier attempt left.
StagedMessage = DeliveredArchive | StagedEntries | StagedParts


class StagingFolder:
    """The staging folder of a session's transfer.

    If the target's file system does not keep the user that made a folder, the folder's name may
    have the spare id in place of the transfer's id.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        #: True if the folder exists or may exist: also if no reply came.
        self.is_there = False
        #: True if the target folder was made for this transfer, even by an attempt that died.
        self.fresh_target = False
        #: The folders that were made on the way to the target folder, and that one.
        self.made: tuple[str, ...] = ()
        #: True if the target's file system keeps the user that made a folder.
        self.keeps_owners = True
        #: Codes of the notes on the target's file system that were passed on.
        self._noted: set[str] = set()
        #: Called with code and sentence of each of them.
        self.on_note: Callable[[str, str], None] = lambda code, sentence: None
        request = session.request
        self._id, self._spare_id = request.transfer_id, ""
        if not request.on_record:
            self._spare_id = f"{request.transfer_id}-{os.urandom(8).hex()}"

    @property
    def names(self) -> dict[str, Any]:
        """The arguments that name the folder in commands to the target."""
        return {"transfer_id": self._id, "spare_id": self._spare_id}

    @property
    def folder(self) -> Endpoint:
        """The target folder, in which the staging folder is."""
        return self._session.request.target._replace(path=self._session.aim.target_path)

    def arguments(self, resume: bool = False) -> dict[str, Any]:
        """Return the arguments of the command STAGE."""
        request = self._session.request
        return {
            **named(request.target, self._session.aim.target_path),
            **self.names,
            "attempt": request.attempt,
            "options": {
                "readback": request.verify_level is Verify.READBACK,
                **{each.name: getattr(request, each.name) for each in OPTIONS if each.at_target},
            },
            "resume": resume,
            "announced": True,
        }

    def begin(self, resume: bool = False) -> None:
        """Have the target make the target folder and the staging folder; do not wait.

        Pass the reply to `take_in`.
        """
        self.is_there = True
        self._session.target.send(STAGE, **self.arguments(resume))

    def take_in(self, reply: StageReply) -> None:
        """Record what the target reports of the folder; raises AgentFailed for a wrong id."""
        if reply.transfer_id not in (self._id, self._spare_id or self._id):
            raise errors.AgentFailed("the agent at the target made a folder of another transfer")
        self.fresh_target, self.keeps_owners = reply.fresh, reply.keeps_owners
        self._id = reply.transfer_id
        self.made = reply.made
        for note in reply.notes:
            if note.code not in self._noted:
                self._noted.add(note.code)
                self.on_note(note.code, note.sentence)

    def make(self, on_message: Callable[[StagedMessage], None] | None = None) -> None:
        """Have the target make the target folder and the staging folder, and wait.

        With `on_message`, the target resumes from what an earlier attempt left, and reports it.
        """
        self.begin(resume=on_message is not None)
        while True:
            message = self._session.inbox.wait_for(
                self._session.target, Done, DeliveredArchive, StagedEntries, StagedParts
            )
            if not isinstance(message, Done):
                if on_message:
                    on_message(message)
            elif isinstance(message.reply, StageReply):
                self.take_in(message.reply)
                return

    def refuse_same_place(self) -> None:
        """Raises Overlap if the source shows the staging folder: one share, seen from two hosts.

        Inodes cannot tell one share from two copies, and a move would remove the only copy.
        """
        session = self._session
        self.make()
        try:
            session.source.request(STAT, path=staging_name(self._id))
        except errors.EngineError as error:
            if error.code != "VANISHED":
                raise
        else:
            source, target = session.source_found.shown, session.target_found.shown
            raise errors.Overlap(f"{source} and {target} are the same place, seen from two hosts")
        self.remove(undo=False)

    def remove(self, undo: bool) -> None:
        """Have the target remove the folder; with `undo`, also empty folders made for it."""
        self._session.leave_to_first()
        attempt = self._session.request.attempt
        self._session.target.request(CLEAN, **self.names, attempt=attempt, undo=undo)
        self.is_there = False
