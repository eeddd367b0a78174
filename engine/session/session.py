"""A session: the agents at both ends, what they found there, and lanes between them."""

from __future__ import annotations

import contextlib
import fcntl
import posixpath
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine import errors
from engine.agent.wire import FILE, STAGING_PREFIX, STAGING_SUFFIX, Entry, unpack_entries
from engine.hub import Hub, Message
from engine.links import Link
from engine.types import Endpoint, HardLinks, Mode, Request, Verify

if TYPE_CHECKING:
    from engine.errand import Site

_PIPE_BYTES = 1 << 20


class Lane:
    """A sender and a receiver, joined by a pipe that the worker's Python never reads.

    Until the first parcel is sent the worker writes to the receiver itself;
    from then on, and until all parcels are through, the sender is the only
    writer on that pipe, and `order` has it pass our commands on.
    """

    def __init__(
        self, hub: Hub, source: Endpoint, target: Endpoint, beside: Lane | None = None
    ) -> None:
        self.target: Link = Link(hub, target, beside=beside.target if beside else None)
        self.source: Link = Link(hub, source, self.target.stdin, beside.source if beside else None)
        for link in (self.target, self.source):
            # Room for a whole program, so that nobody waits for an agent that is just starting.
            # Linux only; elsewhere it is smaller.
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(link.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    #: Orders that the receiver has not answered yet: until then only the sender may write to it.
    orders = 0

    def send_programs(self) -> None:
        """Send both agents their programs."""
        self.target.send_program()
        self.source.send_program()

    def order(self, op: str, blob: bytes = b"", **arguments: Any) -> None:
        """Send the receiver a command among the parcels; its answer comes through the hub."""
        self.orders += 1
        self.source.tell("relay", self.target.command(op, blob, **arguments))

    def hang_up(self) -> None:
        """Let both agents go; nothing of theirs is waited for any more."""
        self.source.hang_up()
        self.target.hang_up()


class Session:
    """Both ends of one transfer, opened and found fit for each other.

    After `look_at_target` the first lane's agents are at the source folder and
    ready to open the target folder. `single` is set when the source is one file: its entry and
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
        #: The name of the one file that is delivered, with the strategy `archive`.
        self.archive_name = ""
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

    def connect(self) -> None:
        """Begin to connect both ends; nothing is waited for."""
        self.lanes.append(Lane(self.hub, self.request.source, self.request.target))
        self.lanes[0].send_programs()

    def open_source(self) -> None:
        """Have the source listed as soon as it can be reached.

        A folder's scan runs on while the target is still being connected.
        """
        request = self.request
        self.source.greet()
        found = self.source.ask("look", root=request.source.root, path=request.source.path)
        self.source_found = found
        if found["kind"] == "absent":
            raise self._source_missing(found)
        if found["kind"] == "other":
            raise errors.BadRequest(f"{found['real']} is neither a folder nor a file")
        if found["kind"] == "folder":
            self.source.ask("open", root=request.source.root, path=request.source.path)
            self.source.tell(
                "scan",
                filters=request.filters,
                symlinks=request.symlinks,
                hard_links=HardLinks.COPY if request.strategy == "archive" else request.hard_links,
                xattrs=request.xattrs,
                mode_bits=self._mode_bits,
            )

    def _source_missing(self, found: Message) -> errors.EngineError:
        root, path = self.request.source.root, self.request.source.path
        if not found["has_root"]:  # It may be a disk that is not mounted.
            return errors.RootMissing(f"the root {root} does not exist at the source")
        error = errors.SourceMissing(f"{found['real']} does not exist at the source")
        above = posixpath.dirname(path.rstrip("/"))
        error.folder_there = self.source.ask("look", root=root, path=above)["kind"] == "folder"
        return error

    def look_at_target(self) -> None:
        """Wait for the target and refuse what cannot work, changing nothing."""
        request = self.request
        hello = self.target.greet()
        found = self.target.ask(
            "look",
            root=request.target.root,
            path=request.target.path,
            staging=f"{STAGING_PREFIX}{request.transfer_id}{STAGING_SUFFIX}",
        )
        self.target_found = {**found, "system": hello["system"]}
        if not found["has_root"]:
            # Not made: it may be a disk that is not mounted, and a move would fill the wrong one.
            raise errors.RootMissing(f"the root {request.target.root} does not exist at the target")
        if self.source_found["kind"] == "file":
            self._aim_file()
        if request.strategy == "archive":
            self._aim_archive()
        elif not self.single and found["kind"] not in ("absent", "folder"):
            raise errors.TargetExists(f"{found['real']} is a file, the source a folder")
        self._refuse_overlap()
        if self.source_found["kind"] == "file":
            self._open_file()

    @property
    def round_trip(self) -> float:
        """Seconds to the further of the two ends and back, as far as it was measured."""
        return max(self.source.answered_in, self.target.answered_in)

    @property
    def keeps_archive_known(self) -> bool:
        """Whether the staging folder stays until the source is removed, to know the archive by.

        A copy knows it by its content: it makes the same one again.
        """
        return bool(self.archive_name) and self.request.mode is Mode.MOVE

    @property
    def _mode_bits(self) -> int:
        return 0o7777 if self.request.special_bits else 0o777

    def _open_file(self) -> None:
        assert self.single
        self.source.ask("open", root=self.request.source.root, path=self._source_path)
        planned, name = self.single
        found = unpack_entries(self.source.ask("stat", path=planned.path)["blob"])
        if not found or found[0].kind != FILE:
            raise errors.SourceChanged(f"{self.source_found['real']} is no file any more")
        self.single = (found[0]._replace(mode=found[0].mode & self._mode_bits), name)

    def begin_stage(self, resume: bool = False) -> None:
        """Have the target folder made, and our place in it; `staged_as` takes the answer."""
        # From here on something of ours may be there, also if no answer comes.
        self.staged = True
        self.target.tell("stage", **self._staging(resume))

    def staged_as(self, done: Message) -> None:
        """Take in what the target says about our place in it."""
        self.fresh_target = bool(done["fresh"])

    def stage(self, told: Callable[[Message], None] | None = None) -> None:
        """Make the target folder and our place in it.

        With `told`, what an earlier attempt left is taken up, and told of.
        """
        self.begin_stage(resume=told is not None)
        while True:
            message = self.hub.wait_for(self.target, "done", "delivered", "held", "parts")
            if "done" in message:
                break
            if told:
                told(message)
        self.staged_as(message["done"])

    def start_lane(self, shared: bool) -> Lane:
        """Begin to open one more lane; the transfer goes on without it if that fails.

        It may share the first one's connections, or have some of its own.
        """
        beside = self.lanes[0] if shared else None
        lane = Lane(self.hub, self.request.source, self.request.target, beside)
        lane.source.dispensable = lane.target.dispensable = True
        lane.send_programs()
        return lane

    def welcome(self, lane: Lane) -> None:
        """Let a lane whose agents have introduced themselves get ready: two answers will come."""
        lane.source.welcome()
        lane.target.welcome()
        place: dict[str, Any] = {"root": self.request.source.root, "path": self._source_path}
        beside = lane.source.shares_with, self.source_found["machine"]
        lane.source.tell("open", beside=beside, **place)
        beside = lane.target.shares_with, self.target_found["machine"]
        lane.target.tell("stage", attach=True, beside=beside, **self._staging())

    @property
    def site(self) -> Site:
        """Where both ends are, for a helper that is to find the same places."""
        from engine.errand import Site  # Most transfers have no helpers.

        single = self.single
        return Site(
            self._source_path,
            self._target_path,
            (single[0].path, single[1]) if single else (),
            self.source_found["machine"],
            self.source_found["chain"][1 if single else 0],
            self.target_found["machine"],
        )

    def join(self, site: Site, label: str) -> None:
        """Come to both ends of a transfer that another worker runs, as its helper.

        Raises BadRequest if what is seen from here are other places, and
        whatever the target says if the transfer's staging folder is not there.
        """
        request = self.request
        self.connect()
        self.source.greet()
        found = self.source.ask("look", root=request.source.root, path=site.source_path)
        if (found["machine"], found["chain"][0]) != (site.machine, list(site.folder)):
            raise errors.BadRequest(
                f"{found['real']} is not the transfer's source as seen from here"
            )
        self._source_path, self._target_path = site.source_path, site.target_path
        if site.names:
            self.single = (Entry(site.names[0], FILE, 0, 0, 0, 0), site.names[1])
        self.source.ask("open", root=request.source.root, path=site.source_path)
        self.target.greet()
        found = self.target.ask("look", root=request.target.root, path=site.target_path)
        if found["machine"] != site.target_machine:
            raise errors.BadRequest(f"{found['real']} is not on the transfer's machine from here")
        self.target.ask("stage", attach=True, label=label, **self._staging())

    def _staging(self, resume: bool = False) -> dict[str, Any]:
        request = self.request
        return {
            "root": request.target.root,
            "path": self._target_path,
            "transfer_id": request.transfer_id,
            "attempt": request.attempt,
            "ways": [
                request.verify_level is Verify.READBACK, request.xattrs, request.special_bits
            ],
            "resume": resume,
            "announced": True,
        }  # fmt: skip

    def open_target(self) -> bool:
        """Bring the target's agent to the target folder; False if there is none yet."""
        if self.staged:
            return True  # It is there: opened once more, the staging folder would be lost.
        try:
            self.target.ask("open", root=self.request.target.root, path=self._target_path)
        except errors.EngineError as error:
            if error.code != "VANISHED":
                raise
            return False
        return True

    def at_target(self, entry: Entry) -> Entry:
        """An entry of the source under the name that it has at the target."""
        return entry._replace(path=self.single[1]) if self.single else entry

    def at_source(self, entry: Entry) -> Entry:
        """An entry of the target under the name that it has at the source."""
        return entry._replace(path=self.single[0].path) if self.single else entry

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

    def clean_anew(self, alive: Callable[[], None]) -> None:
        """Remove the staging folder through a new agent, after the others were ended."""
        request = self.request
        hub = Hub(alive)
        try:
            link = Link(hub, request.target)
            link.send_program()
            link.greet()
            link.ask("open", root=request.target.root, path=self._target_path)
            link.ask("clean", transfer_id=request.transfer_id, attempt=request.attempt, undo=True)
        except errors.EngineError as error:
            if error.code != "VANISHED":  # No target folder: nothing of ours in it.
                raise
        finally:
            hub.close()

    def close(self, done: bool = False) -> None:
        """End all agents; with `done` they have no work left."""
        self.hub.close(done)
        self.lanes.clear()

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

    def _aim_archive(self) -> None:
        """One archive: B is its name if it ends in .zip, else the folder to put it in."""
        base = posixpath.basename(self.source_found["real"]) or "archive"
        path = self.request.target.path
        self._target_path = path.rstrip("/")
        if self.target_found["kind"] == "folder" or not path.endswith(".zip"):
            self.archive_name = f"{base}.zip"
        else:
            self._target_path, self.archive_name = posixpath.split(self._target_path)

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
