"""The engine's vocabulary: what a caller hands in and what it gets back.

Everything here is plain data and free of Django, so that the CLI, the jobs
app and DKU speak to the engine in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from engine.agent.wire import show

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


class Verify(StrEnum):
    """How far the proof goes: the received stream, or the medium read back."""

    STREAM = "stream"
    READBACK = "readback"


class OnConflict(StrEnum):
    """What to do where the target already holds something different."""

    FAIL = "fail"
    SKIP = "skip"
    OVERWRITE = "overwrite"
    KEEP_BOTH = "keep-both"


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


class ParcelState(StrEnum):
    """How far a parcel has come."""

    PENDING = "pending"
    SENDING = "sending"
    VERIFIED = "verified"
    PUBLISHED = "published"
    SOURCE_REMOVED = "source_removed"
    FAILED = "failed"


@dataclass(frozen=True)
class SshAccess:
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
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    identity_file: str = ""
    host_key: str = ""
    known_hosts_file: str = ""
    config_file: str = ""


@dataclass(frozen=True)
class Endpoint:
    """One side of a transfer: `path` below `root` on this machine or behind SSH.

    `root` is absolute and trusted; `path` is relative, `/`-separated, and may
    not lead out of the root, not even through a symlink. A trailing `/` on a
    target path says "a folder" where the source is a file.
    """

    root: str
    path: str = ""
    ssh: SshAccess | None = None


@dataclass(frozen=True)
class Request:
    """One transfer, complete: the engine needs nothing else to run it.

    `transfer_id` ([a-z0-9-], at most 64 characters) names the staging folder
    at the target; `attempt` is the fencing number: a lower one can no longer
    publish once a higher one has started. `verify=None` takes the mode's
    default (copy: stream, move: readback). `drill="flip-byte"` makes the
    sender damage one byte after hashing it, to prove that it is caught.
    """

    source: Endpoint
    target: Endpoint
    transfer_id: str
    attempt: int = 1
    mode: Mode = Mode.COPY
    strategy: Strategy = Strategy.AUTO
    verify: Verify | None = None
    on_conflict: OnConflict = OnConflict.FAIL
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    streams: int = 1
    drill: str = ""

    @property
    def verify_level(self) -> Verify:
        """The level of proof this transfer runs at."""
        if self.verify is not None:
            return self.verify
        return Verify.READBACK if self.mode is Mode.MOVE else Verify.STREAM


@dataclass(frozen=True)
class Progress:
    """A snapshot of the counters; files count every entry that is not a folder."""

    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    files_skipped: int = 0
    files_failed: int = 0


@dataclass(frozen=True)
class ParcelReport:
    """News of one parcel; `manifest` is set once the parcel is verified."""

    number: int
    kind: ParcelKind
    files: int
    bytes: int
    state: ParcelState
    digest: str = ""
    manifest: Blob | None = None


@dataclass(frozen=True)
class EntryFailure:
    """One entry that was not delivered; `path` is escaped for display."""

    path: str
    code: str
    message: str


@dataclass(frozen=True)
class Report:
    """How a transfer ended. `status` is "done" or "partial"; all else raises."""

    status: str
    mode: Mode
    verify: Verify
    files: int
    bytes: int
    files_skipped: int
    files_removed: int
    seconds: float
    parcels: int
    failures: tuple[EntryFailure, ...] = ()
    failures_total: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Bytes per second over the whole transfer."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Probe:
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


@dataclass(frozen=True)
class HostKey:
    """A host's public key as it would be pinned, with its fingerprint to compare."""

    line: str
    fingerprint: str


class Observer(Protocol):
    """The caller's side of a running transfer.

    All methods are called from the thread that called `engine.run`.
    `checkpoint` is called at least once a second and may raise to stop the
    transfer: `Cancelled`, or anything else, which passes through unchanged
    after the agents were ended. `event` is for the few things worth a line
    in the trail, never one per file. `progress` comes at most twice a second.
    """

    def checkpoint(self) -> None: ...

    def phase(self, phase: Phase) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def parcel(self, parcel: ParcelReport) -> None: ...

    def planned(self, plan: dict[str, Any]) -> None: ...

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None: ...


class SilentObserver:
    """An observer that only lets the transfer run; a base for real ones."""

    def checkpoint(self) -> None:
        """Let the transfer go on."""

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
