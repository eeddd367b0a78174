"""Session: the agents at both ends of one transfer, and the streams between them."""

from __future__ import annotations

from collections.abc import Callable

from engine import errors
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.protocol.commands import LEAVE, OPEN, STAGE
from engine.protocol.replies import InspectReply
from engine.session.aim import Aim
from engine.session.places import inspect, named, pinned
from engine.session.staging import StagingFolder
from engine.session.stream import Stream
from engine.types import Mode, Request


class Session:
    """The connections to both ends of one transfer.

    `preflight.open_source` and `preflight.inspect_target` set `source_found` and `target_found`;
    after them the first stream's agents have the source folder open, and are ready to open the
    target folder.
    """

    source_found: InspectReply
    target_found: InspectReply
    #: `sys.platform` of the target.
    target_system = ""
    #: True if nothing may change at the target, not even to find out what it keeps.
    is_dry = False

    def __init__(self, request: Request, checkpoint: Callable[[], None]) -> None:
        self.request = request
        self.inbox = Inbox(checkpoint)
        self.streams: list[Stream] = []
        self.aim = Aim(request)
        self.staging = StagingFolder(self)

    @property
    def source(self) -> AgentProcess:
        """The agent at the source."""
        return self.streams[0].source

    @property
    def target(self) -> AgentProcess:
        """The agent at the target."""
        return self.streams[0].target

    @property
    def round_trip(self) -> float:
        """Round trip in seconds to the slower of both ends, as measured by its last reply."""
        return max(self.source.answered_in, self.target.answered_in)

    @property
    def keeps_archive_known(self) -> bool:
        """True if the staging folder stays until the source is removed, to recognise the archive.

        A copy recognises an archive by its content: it makes the same one again.
        """
        return bool(self.aim.archive_name) and self.request.mode is Mode.MOVE

    @property
    def one_machine(self) -> bool:
        """True if both ends are on one machine, where devices and inodes mean the same."""
        return bool(self.source_found.machine == self.target_found.machine)

    def connect(self) -> None:
        """Start to connect both ends; do not wait."""
        self.streams.append(Stream(self.inbox, self.request.source, self.request.target))
        self.streams[0].send_programs()

    def inspect(self, agent: AgentProcess, path: str, staging: str = "") -> InspectReply:
        """Return what is at a place below an end's root, and pin the root to this folder."""
        request = self.request
        end = request.target if agent.is_target else request.source
        found = inspect(agent, end, path, staging=staging)
        end = pinned(end, found)
        both = (request.source, end) if agent.is_target else (end, request.target)
        self.request = request._replace(source=both[0], target=both[1])
        return found

    def start_stream(self, shared: bool) -> Stream:
        """Start to open one more stream; the transfer goes on without it if that fails.

        If `shared`, it uses the first stream's connections; else it has its own.
        """
        sibling = self.streams[0] if shared else None
        stream = Stream(self.inbox, self.request.source, self.request.target, sibling)
        stream.source.optional = stream.target.optional = True
        stream.send_programs()
        return stream

    def welcome(self, stream: Stream) -> None:
        """Prepare a stream whose agents have introduced themselves; two replies follow."""
        stream.source.welcome()
        stream.target.welcome()
        place = named(self.request.source, self.aim.source_path)
        sibling = stream.source.shared_with, self.source_found.machine
        stream.source.send(OPEN, sibling=sibling, **place)
        sibling = stream.target.shared_with, self.target_found.machine
        stream.target.send(STAGE, attach=True, sibling=sibling, **self.staging.arguments())

    def open_target(self) -> bool:
        """Have the target's agent open the target folder; False if it does not exist yet."""
        if self.staging.is_there:
            return True  # Opening it a second time would make the agent lose the staging folder.
        try:
            self.target.request(OPEN, **named(self.request.target, self.aim.target_path))
        except errors.EngineError as error:
            if error.code != "VANISHED":
                raise
            return False
        return True

    def leave_to_first(self) -> None:
        """Have all target agents but the first close their files, before it removes the folder.

        Some file systems keep a folder while a file in it is open. The worker waits for no reply.
        """
        for stream in self.streams[1:]:
            stream.target.send(LEAVE)

    def close(self, done: bool = False) -> None:
        """End all agents; pass `done` if they have no work left."""
        self.inbox.close(done)
        self.streams.clear()
