"""The commands that a worker sends to an agent, each with the class of its reply.

docs/protocol.md lists them with their arguments; `tests/engine/test_protocol.py` compares that
page, this module and the agents' `do_<op>` methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from engine.protocol.fields import Fields
from engine.protocol.replies import (
    CloseArchiveReply,
    CompareReply,
    CompleteReply,
    DigestsReply,
    FenceOutReply,
    HashReply,
    InspectReply,
    NamesReply,
    Nothing,
    PublishArchiveReply,
    PublishReply,
    ReceivedReply,
    RemoveFoldersReply,
    RemoveReply,
    ScanReply,
    SentReply,
    StageReply,
    StatReply,
)

Reply = TypeVar("Reply", covariant=True)


class Command(Generic[Reply]):
    """A command: its name on the wire (`op`), and the function that reads its reply."""

    def __init__(self, op: str, read: Callable[[Fields], Reply]) -> None:
        self.op, self.read = op, read


# Both ends.
INSPECT = Command("inspect", InspectReply.read)
OPEN = Command("open", Nothing.read)
STAT = Command("stat", StatReply.read)
HASH = Command("hash", HashReply.read)
SYNC = Command("sync", Nothing.read)
# A source.
SCAN = Command("scan", ScanReply.read)
SEND = Command("send", SentReply.read)
RATE = Command("rate", Nothing.read)
RELAY = Command("relay", Nothing.read)
REMOVE = Command("remove", RemoveReply.read)
REMOVE_FOLDERS = Command("remove_folders", RemoveFoldersReply.read)
# A target.
COMPARE = Command("compare", CompareReply.read)
STAGE = Command("stage", StageReply.read)
NAMES = Command("names", NamesReply.read)
CHECK = Command("check", DigestsReply.read)
EXPECT = Command("expect", Nothing.read)
RECEIVE = Command("receive", ReceivedReply.read)
DISCARD = Command("discard", Nothing.read)
FENCE_OUT = Command("fence_out", FenceOutReply.read)
COMPLETE = Command("complete", CompleteReply.read)
CLOSE_ARCHIVE = Command("close_archive", CloseArchiveReply.read)
INSIDE = Command("inside", Nothing.read)
PUBLISH_ARCHIVE = Command("publish_archive", PublishArchiveReply.read)
PUBLISH = Command("publish", PublishReply.read)
LEAVE = Command("leave", Nothing.read)
CLEAN = Command("clean", Nothing.read)

#: Commands by name. The worker never sends RECEIVE: its reply reports a parcel that arrived.
COMMANDS: dict[str, Command[Any]] = {
    command.op: command for command in tuple(globals().values()) if isinstance(command, Command)
}
