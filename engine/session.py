"""A session: the agents at both ends, what they found there, and lanes between them."""

from __future__ import annotations

import contextlib
import fcntl
import posixpath
from collections.abc import Callable

from engine import errors
from engine.agent.wire import FILE, STAGING_PREFIX, STAGING_SUFFIX, Entry
from engine.links import Hub, Link, Message
from engine.types import Endpoint, Request

_PIPE_BYTES = 1 << 20


class Lane:
    """A sender and a receiver, joined by a pipe that the worker's Python never reads."""

    def __init__(self, hub: Hub, source: Endpoint, target: Endpoint) -> None:
        self.target = Link(hub, target)
        with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere it is smaller.
            fcntl.fcntl(self.target.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.source = Link(hub, source, stdout=self.target.stdin)

    def greet(self) -> None:
        """Wait for both agents; the sender first, so that its shell's noise comes before us."""
        self.source.greet()
        self.target.greet()


class Session:
    """Both ends of one transfer, opened and found fit for each other.

    After `open`, the first lane's agents are at the source folder and the
    target folder. `single` is set when the source is one file: its entry and
    the name it takes at the target.
    """

    def __init__(self, request: Request, checkpoint: Callable[[], None]) -> None:
        self.request = request
        self.hub = Hub(checkpoint)
        self.lanes: list[Lane] = []
        self.source_found: Message = {}
        self.target_found: Message = {}
        self.single: tuple[Entry, str] | None = None
        self.staged = False
        #: Whether the target folder was made for this transfer, be it by an attempt that died.
        self.fresh_target = False
        self._source_path = request.source.path
        self._target_path = request.target.path.rstrip("/")

    @property
    def source(self) -> Link:
        """The agent at the source."""
        return self.lanes[0].source

    @property
    def target(self) -> Link:
        """The agent at the target."""
        return self.lanes[0].target

    def look(self) -> None:
        """Connect both ends and refuse what cannot work, changing nothing."""
        request = self.request
        self._connect()
        self.source_found = self.source.ask(
            "look", root=request.source.root, path=request.source.path
        )
        self.target_found = self.target.ask(
            "look", root=request.target.root, path=request.target.path
        )
        kind = self.source_found["kind"]
        if kind == "absent":
            raise errors.SourceMissing(f"{self.source_found['real']} does not exist at the source")
        if kind == "other":
            raise errors.BadRequest(f"{self.source_found['real']} is neither a folder nor a file")
        if not self.target_found["has_root"]:
            # Not made: it may be a disk that is not mounted, and a move would fill the wrong one.
            raise errors.RootMissing(f"the root {request.target.root} does not exist at the target")
        if kind == "file":
            self._aim_file()
        elif self.target_found["kind"] not in ("absent", "folder"):
            raise errors.TargetExists(f"{self.target_found['real']} is a file, the source a folder")
        self._refuse_overlap()

    def open_source(self) -> None:
        """Bring the source's agent to the folder to read from."""
        self.source.ask("open", root=self.request.source.root, path=self._source_path)
        if self.single:
            planned, name = self.single
            found = self.source.ask("stat", path=planned.path)["entry"]
            if not found or found[1] != FILE:
                raise errors.SourceChanged(f"{self.source_found['real']} is no file any more")
            self.single = (Entry(*found), name)

    def stage(self) -> None:
        """Make the target folder and our place in it."""
        # From here on something of ours may be there, also if no answer comes.
        self.staged = True
        self.fresh_target = bool(self._stage(self.target, attach=False)["fresh"])

    def add_lane(self) -> None:
        """Open one more lane, ready to carry parcels."""
        self._connect()
        lane = self.lanes[-1]
        lane.source.ask("open", root=self.request.source.root, path=self._source_path)
        self._stage(lane.target, attach=True)

    def open_target(self) -> bool:
        """Bring the target's agent to the target folder; False if there is none yet."""
        try:
            self.target.ask("open", root=self.request.target.root, path=self._target_path)
        except errors.EngineError as error:
            if error.code != "VANISHED":
                raise
            return False
        return True

    @property
    def one_machine(self) -> bool:
        """Whether both ends are on the same machine, where devices and inodes mean the same."""
        return bool(self.source_found["machine"] == self.target_found["machine"])

    def refuse_same_place(self) -> None:
        """Overlap if our staging folder shows at the source: one share, seen from two hosts.

        Inodes cannot tell that from two copies; and a move would remove the only one.
        """
        self.stage()
        name = f"{STAGING_PREFIX}{self.request.transfer_id}{STAGING_SUFFIX}"
        try:
            self.source.ask("stat", path=name)
        except errors.EngineError as error:
            if error.code != "VANISHED":
                raise
        else:
            raise errors.Overlap(
                f"{self.source_found['real']} and {self.target_found['real']} are the same place, "
                "seen from two hosts"
            )
        self.clean(undo=False)

    def clean(self, undo: bool) -> None:
        """Remove the staging folder; with `undo` also the folders made for it."""
        request = self.request
        self.target.ask(
            "clean", transfer_id=request.transfer_id, attempt=request.attempt, undo=undo
        )
        self.staged = False

    def clean_anew(self) -> None:
        """Remove the staging folder through a new agent, after the others were ended."""
        request = self.request
        hub = Hub(lambda: None)
        try:
            link = Link(hub, request.target)
            link.greet()
            link.ask("open", root=request.target.root, path=self._target_path)
            link.ask("clean", transfer_id=request.transfer_id, attempt=request.attempt, undo=True)
        except errors.EngineError as error:
            if error.code != "VANISHED":  # No target folder: nothing of ours in it.
                raise
        finally:
            hub.close()

    def close(self) -> None:
        """End all agents."""
        self.hub.close()
        self.lanes.clear()

    def _connect(self) -> None:
        lane = Lane(self.hub, self.request.source, self.request.target)
        self.lanes.append(lane)
        lane.greet()

    def _stage(self, link: Link, attach: bool) -> Message:
        request = self.request
        opened = link.ask("open", root=request.target.root, path=self._target_path, make=True)
        return link.ask(
            "stage",
            transfer_id=request.transfer_id,
            attempt=request.attempt,
            made=opened["made"],
            attach=attach,
        )

    def _aim_file(self) -> None:
        """One file: it becomes the target's name, or goes into the target's folder."""
        folder, name = posixpath.split(self.source_found["below_root"])
        if not name:
            raise errors.BadRequest("the source's root is a file; it has to be a folder")
        entry = Entry(name, FILE, 0, 0, 0, 0)
        self._source_path = folder
        if self.request.target.path.endswith("/") or self.target_found["kind"] == "folder":
            self.single = (entry, posixpath.basename(self.request.source.path.rstrip("/")))
        elif self._target_path:
            self._target_path, last = posixpath.split(self._target_path)
            self.single = (entry, last)
        else:
            raise errors.BadRequest("a file needs a name or a folder at the target")

    def _refuse_overlap(self) -> None:
        source, target = self.source_found, self.target_found
        if not self.one_machine:
            return
        ours, theirs = source["chain"], target["chain"]
        if self.single:
            name = self.single[1]
            beside = ours[1] == theirs[0] and self.single[0].path == name
            overlap = ours[0] == theirs[0] or beside
        else:
            overlap = ours[0] in theirs or theirs[0] in ours
        if overlap:
            raise errors.Overlap(
                f"{source['real']} and {target['real']} are the same place or lie inside each other"
            )
