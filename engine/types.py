"""The engine's vocabulary: what a caller hands in and what it gets back.

Everything here is plain data and free of Django, so that the CLI, the jobs
app and DKU speak to the engine in the same words. Named tuples, not data
classes: those take 12 ms to import, a twentieth of a small transfer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from engine.agent.wire import show

if TYPE_CHECKING:
    from engine.errand import Lender

#: Bytes, where a field called `bytes` hides the type.
Blob: TypeAlias = bytes


class Mode(StrEnum):
    """What happens to the source after the proof of arrival."""

    COPY = "copy"
    MOVE = "move"


class Strategy(StrEnum):
    """How entries are packed on the wire; `AUTO` decides and says why."""

    AUTO = "auto"
    ZIP = "zip"
    FILES = "files"
    ARCHIVE = "archive"


class Verify(StrEnum):
    """How far the proof goes: the received stream, or the medium read back."""

    STREAM = "stream"
    READBACK = "readback"


class OnConflict(StrEnum):
    """What to do where the target already holds something different."""

    FAIL = "fail"
    SKIP = "skip"
    OVERWRITE = "overwrite"
    OVERWRITE_OLDER = "overwrite-older"
    KEEP_BOTH = "keep-both"


class Symlinks(StrEnum):
    """What happens to symlinks: carried as links, left out, or replaced by what they lead to."""

    KEEP = "keep"
    SKIP = "skip"
    FOLLOW = "follow"


class HardLinks(StrEnum):
    """What happens to further names of one file: each its own file, or further names again."""

    COPY = "copy"
    KEEP = "keep"


class Phase(StrEnum):
    """Where in its life a running transfer is."""

    PREFLIGHT = "preflight"
    SCAN = "scan"
    TRANSFER = "transfer"
    VERIFY = "verify"
    PUBLISH = "publish"
    REMOVE_SOURCE = "remove_source"
    CLEANUP = "cleanup"


class ParcelKind(StrEnum):
    """How a parcel looks on the wire."""

    ZIP = "zip"
    FILE = "file"
    RANGE = "range"
    ARCHIVE = "archive"


class ParcelState(StrEnum):
    """How far a parcel has come."""

    PENDING = "pending"
    SENDING = "sending"
    VERIFIED = "verified"
    PUBLISHED = "published"
    SOURCE_REMOVED = "source_removed"
    FAILED = "failed"


class SshAccess(NamedTuple):
    """How to reach a host with the OpenSSH client.

    At most one of `password`, `private_key` and `identity_file` is set; with
    none, the user's agent and default keys are tried. `host_key` is a pinned
    public key line (`ssh-ed25519 AAAA…`) and wins over `known_hosts_file`;
    with neither, the user's own known_hosts decides. An unknown or changed
    key is always an error.
    """

    host: str
    port: int | None = None
    username: str = ""
    password: str = ""
    private_key: str = ""
    identity_file: str = ""
    host_key: str = ""
    known_hosts_file: str = ""
    config_file: str = ""

    def __repr__(self) -> str:
        """All but the secrets."""
        shown = {
            name: value
            for name, value in self._asdict().items()
            if value and name not in ("password", "private_key")
        }
        return f"SshAccess({shown})"


class Endpoint(NamedTuple):
    """One side of a transfer: `path` below `root` on this machine or behind SSH.

    `root` is absolute and trusted; `path` is relative, `/`-separated, and may
    not lead out of the root, not even through a symlink. A trailing `/` on a
    target path says "a folder" where the source is a file.
    """

    root: str
    path: str = ""
    ssh: SshAccess | None = None


class Request(NamedTuple):
    """One transfer, complete: the engine needs nothing else to run it.

    `transfer_id` ([a-z0-9-], at most 64 characters) names the staging folder
    at the target; `attempt` is the fencing number: a lower one can no longer
    publish once a higher one has started. With `resume` it goes on from what
    the last attempt left. `verify=None` takes the mode's default (copy: stream,
    move: readback). `filters` are ("include" | "exclude", pattern), in order;
    the last that matches decides (see `agent.filters`). `checksum` has files of
    one size compared by content, whatever their times. `streams` 0 chooses by
    what is measured, up to `max_streams`; `bwlimit` is in bytes per second over
    all streams, 0 for none. `drill="flip-byte"` makes the sender damage one
    byte after hashing it, to prove that it is caught.
    """

    source: Endpoint
    target: Endpoint
    transfer_id: str
    attempt: int = 1
    resume: bool = False
    mode: Mode = Mode.COPY
    strategy: Strategy = Strategy.AUTO
    verify: Verify | None = None
    on_conflict: OnConflict = OnConflict.FAIL
    checksum: bool = False
    filters: tuple[tuple[str, str], ...] = ()
    symlinks: Symlinks = Symlinks.KEEP
    hard_links: HardLinks = HardLinks.COPY
    xattrs: bool = False
    special_bits: bool = False
    streams: int = 0
    max_streams: int = 8
    bwlimit: int = 0
    drill: str = ""

    @property
    def verify_level(self) -> Verify:
        """The level of proof this transfer runs at."""
        if self.verify is not None:
            return self.verify
        return Verify.READBACK if self.mode is Mode.MOVE else Verify.STREAM


class Progress(NamedTuple):
    """A snapshot of the counters; files count every entry that is not a folder."""

    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    files_skipped: int = 0
    files_failed: int = 0


class ParcelReport(NamedTuple):
    """News of one parcel; `manifest` is set once the parcel is verified."""

    number: int
    kind: ParcelKind
    files: int
    bytes: int
    state: ParcelState
    digest: str = ""
    manifest: Blob | None = None


class EntryFailure(NamedTuple):
    """One entry that was not delivered; `path` is escaped for display."""

    path: str
    code: str
    message: str


class Report(NamedTuple):
    """How a transfer ended. `status` is "done" or "partial"; all else raises."""

    status: str
    mode: Mode
    verify: Verify
    files: int
    bytes: int
    files_skipped: int
    files_removed: int
    files_resumed: int
    bytes_resumed: int
    streams: int
    seconds: float
    parcels: int
    failures: tuple[EntryFailure, ...] = ()
    failures_total: int = 0
    plan: dict[str, Any] = {}

    @property
    def rate(self) -> float:
        """Bytes per second over the whole transfer."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


class Probe(NamedTuple):
    """What a connection test found at an endpoint; sizes in bytes."""

    python: str
    system: str
    hostname: str
    realpath: str
    exists: bool
    is_dir: bool
    writable: bool
    free_bytes: int
    total_bytes: int
    free_inodes: int
    name_max: int
    case_folding: bool | None
    seconds: float


class HostKey(NamedTuple):
    """A host's public key as it would be pinned, with its fingerprint to compare."""

    line: str
    fingerprint: str


class Observer(Protocol):
    """The caller's side of a running transfer.

    All methods are called from the thread that called `engine.run`.
    `checkpoint` is called at least once a second and may raise to stop the
    transfer: `Cancelled`, or anything else, which passes through unchanged
    after the agents were ended. `alive` is called likewise while what has arrived is cleared
    away after that, and must not stop it for the same reason. `bandwidth` says how many bytes
    per second may be used now, given the request's `bwlimit`; it is asked all the time. Manifests
    are made only if `wants_manifests`: they cost some time. `event` is for the
    few things worth a line in the trail, never one per file. `progress` comes at
    most twice a second. With a `lender` other workers may carry some of the parcels.
    """

    wants_manifests: bool
    lender: Lender | None

    def checkpoint(self) -> None: ...

    def alive(self) -> None: ...

    def bandwidth(self, asked: int) -> int: ...

    def phase(self, phase: Phase) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def parcel(self, parcel: ParcelReport) -> None: ...

    def planned(self, plan: dict[str, Any]) -> None: ...

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None: ...


class SilentObserver:
    """An observer that only lets the transfer run; a base for real ones."""

    wants_manifests = False
    lender: Lender | None = None

    def checkpoint(self) -> None:
        """Let the transfer go on."""

    def alive(self) -> None:
        """Let the clearing away go on."""

    def bandwidth(self, asked: int) -> int:
        """Use what was asked for."""
        return asked

    def phase(self, phase: Phase) -> None:
        """Ignore the phase."""

    def progress(self, progress: Progress) -> None:
        """Ignore the counters."""

    def parcel(self, parcel: ParcelReport) -> None:
        """Ignore the parcel."""

    def planned(self, plan: dict[str, Any]) -> None:
        """Ignore the plan."""

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Ignore the event."""


def display_path(path: str) -> str:
    """A path as text that any log, JSON or database can hold.

    Names travel inside the engine as `os.fsdecode` strings; bytes that are
    not UTF-8 and control characters are shown as backslash escapes.
    """
    return show(path)
