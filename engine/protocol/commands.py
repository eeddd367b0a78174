"""The commands that a worker sends to an agent, each with the class of its reply.

docs/protocol.md lists them with their arguments; `tests/engine/test_protocol.py` compares that
page, this module and the agents' `do_<op>` methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from engine.protocol.fields import Fields
from engine.protocol.publish_replies import (
    AdjustReply,
    PublishArchiveReply,
    PublishReply,
    UnpublishedReply,
)
from engine.protocol.replies import (
    CloseArchiveReply,
    CompleteReply,
    DigestsReply,
    FenceOutReply,
    HashReply,
    InspectReply,
    Nothing,
    ReceivedReply,
    RemoveFoldersReply,
    RemoveReply,
    ScanReply,
    SentReply,
    StatReply,
)
from engine.protocol.target_replies import CompareReply, NamesReply, StageReply

Reply = TypeVar("Reply", covariant=True)


class Command(Generic[Reply]):
    """A command: its name on the wire (`op`), and the function that reads its reply.

    `step` names it to a person. While an agent `flushes` files to a disk, it may hang in one
    system call for long.
    """

    def __init__(
        self, op: str, read: Callable[[Fields], Reply], step: str, *, flushes: bool = False
    ) -> None:
        self.op, self.read, self.step, self.flushes = op, read, step, flushes


# Both ends.
INSPECT = Command("inspect", InspectReply.read, "inspect the place")
OPEN = Command("open", Nothing.read, "open the folder")
STAT = Command("stat", StatReply.read, "look at one entry")
HASH = Command("hash", HashReply.read, "read files for their digests")
SYNC = Command("sync", Nothing.read, "write everything to the disk", flushes=True)
# A source.
SCAN = Command("scan", ScanReply.read, "list the source")
SEND = Command("send", SentReply.read, "send a parcel")
RATE = Command("rate", Nothing.read, "change the rate")
RELAY = Command("relay", Nothing.read, "pass a command on")
REMOVE = Command("remove", RemoveReply.read, "remove delivered files at the source")
REMOVE_FOLDERS = Command(
    "remove_folders", RemoveFoldersReply.read, "remove empty folders at the source"
)
# A target.
COMPARE = Command("compare", CompareReply.read, "compare with what the target has")
STAGE = Command("stage", StageReply.read, "prepare the staging folder")
NAMES = Command("names", NamesReply.read, "try which names the target can hold")
CHECK = Command("check", DigestsReply.read, "read staged files back", flushes=True)
EXPECT = Command("expect", Nothing.read, "take an announcement")
RECEIVE = Command("receive", ReceivedReply.read, "receive a parcel", flushes=True)
DISCARD = Command("discard", Nothing.read, "discard staged entries")
FENCE_OUT = Command("fence_out", FenceOutReply.read, "fence a helper out")
COMPLETE = Command(
    "complete", CompleteReply.read, "complete a file that came in slices", flushes=True
)
CLOSE_ARCHIVE = Command("close_archive", CloseArchiveReply.read, "close the archive")
INSIDE = Command("inside", Nothing.read, "record what the archive holds")
PUBLISH_ARCHIVE = Command(
    "publish_archive", PublishArchiveReply.read, "publish the archive", flushes=True
)
PUBLISH = Command("publish", PublishReply.read, "publish the files", flushes=True)
UNPUBLISHED = Command("unpublished", UnpublishedReply.read, "name what could not be published")
ADJUST = Command("adjust", AdjustReply.read, "give files that were there their mode")
LEAVE = Command("leave", Nothing.read, "close the staging folder's files")
CLEAN = Command("clean", Nothing.read, "remove the staging folder")

#: Commands by name. The worker never sends RECEIVE: its reply reports a parcel that arrived.
COMMANDS: dict[str, Command[Any]] = {
    command.op: command for command in tuple(globals().values()) if isinstance(command, Command)
}
