"""The engine's types: what a caller passes in, and what it gets back.

They are plain data and need no Django, so that the CLI, the jobs app and DKU use
the same ones. They are named tuples, not data classes: those take 12 ms to import,
a twentieth of a small transfer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from engine.agent.typed import NamedTuple
from engine.agent.wire import show

#: The type bytes, for classes whose field `bytes` hides it.
Blob: TypeAlias = bytes


class Mode(StrEnum):
    """What happens to the source once the target's data is proven."""

    COPY = "copy"
    MOVE = "move"


class Strategy(StrEnum):
    """How entries are packed on the wire; with `AUTO` the engine decides and says why."""

    AUTO = "auto"
    ZIP = "zip"
    FILES = "files"
    ARCHIVE = "archive"


class Verify(StrEnum):
    """How far the proof goes: the stream as received, or the file read back from the medium."""

    STREAM = "stream"
    READBACK = "readback"


class OnConflict(StrEnum):
    """What to do if the target already holds something different."""

    FAIL = "fail"
    SKIP = "skip"
    OVERWRITE = "overwrite"
    OVERWRITE_OLDER = "overwrite-older"
    KEEP_BOTH = "keep-both"


class Symlinks(StrEnum):
    """What happens to symlinks: carried as links, left out, or replaced by what they point to."""

    KEEP = "keep"
    SKIP = "skip"
    FOLLOW = "follow"


class HardLinks(StrEnum):
    """What happens to further names of a file: each becomes a file, or stays a further name."""

    COPY = "copy"
    KEEP = "keep"


class Option(NamedTuple):
    """One thing that may be chosen for a transfer: a field of `Request`, declared once.

    The command line has it as `--name` with dashes, the job's column, the API's field and the
    admin's have the same name. `kind` is an enum, bool or int; `most` is an int's highest value.
    `at_target` options go to the target's agent, as a flag of that name. `since` is the version of
    the options that has it first: a worker leaves a job alone whose version it does not know.
    """

    name: str
    kind: type[StrEnum] | type[bool] | type[int]
    default: Any
    help: str
    most: int = 0
    at_target: bool = False
    since: int = 1

    def value_of(self, stored: Any) -> Any:
        """A stored value as the engine's type; nothing, or an empty text, is the default."""
        return self.default if stored in ("", None) else self.kind(stored)


class Phase(StrEnum):
    """The phase that a running transfer is in."""

    PREFLIGHT = "preflight"
    SCAN = "scan"
    TRANSFER = "transfer"
    VERIFY = "verify"
    PUBLISH = "publish"
    REMOVE_SOURCE = "remove_source"
    CLEANUP = "cleanup"


class ParcelKind(StrEnum):
    """The form of a parcel on the wire."""

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
    none, ssh tries the user's agent and default keys. `host_key` is a pinned
    public key line (`ssh-ed25519 AAAA…`) and overrides `known_hosts_file`;
    with neither, ssh uses the user's own known_hosts. An unknown or changed
    key is always an error. `passes` names the variables that ssh gets beside HOME,
    LANG and PATH; None stands for a person's whole environment.
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
    passes: tuple[str, ...] | None = ()

    def __repr__(self) -> str:
        """Show all fields except the secrets."""
        shown = {
            name: value
            for name, value in self._asdict().items()
            if value and name not in ("password", "private_key")
        }
        return f"SshAccess({shown})"


class Endpoint(NamedTuple):
    """One end of a transfer: `path` below `root`, on this machine or behind SSH.

    `root` is absolute. `path` is relative and `/`-separated; it may not lead out of the
    root, not even through a symlink. A trailing `/` on a target path means a folder
    if the source is a file.
    """

    root: str
    path: str = ""
    ssh: SshAccess | None = None
    #: The root's real path on record, or ""; an agent refuses another one (RootMoved).
    real_root: str = ""


class Request(NamedTuple):
    """One complete transfer: the engine needs nothing else to run it.

    `transfer_id` ([a-z0-9-], at most 64 characters) names the staging folder
    at the target. `attempt` is the fencing number: once a higher attempt has started,
    a lower one can no longer publish. With `resume` the transfer continues from what
    the last attempt left. `verify=None` takes the mode's default (copy: stream,
    move: readback). `filters` are ("include" | "exclude", pattern), in order;
    the last one that matches decides (see `agent.source.filters`). With `checksum`, files of
    the same size are compared by content, whatever their times. With `preallocate` the target
    reserves the disk space of large files before it writes them. With `streams` 0 the engine
    chooses by measurement, up to `max_streams`. `bwlimit` is in bytes per second over
    all streams, 0 for none. `inject_fault="flip-byte"` makes the sender damage one
    byte after hashing it, to prove that the engine detects it. Without `make_parents` only the
    last folder of the target's path is made, none above it. `on_record` means that the
    caller keeps the id on record, and that the id cannot be guessed: a staging folder of that
    id is then this transfer's, even if the file system does not keep the user that made it.
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
    preallocate: bool = False
    streams: int = 0
    max_streams: int = 8
    bwlimit: int = 0
    inject_fault: str = ""
    make_parents: bool = True
    on_record: bool = False

    @property
    def verify_level(self) -> Verify:
        """The level of proof this transfer runs at."""
        if self.verify is not None:
            return self.verify
        return Verify.READBACK if self.mode is Mode.MOVE else Verify.STREAM

    @property
    def mode_bits(self) -> int:
        """The bits of a mode that this transfer carries."""
        return 0o7777 if self.special_bits else 0o777


#: The options of a transfer that the command line, jobs, the API and the admin offer.
OPTIONS = (
    Option("strategy", Strategy, Strategy.AUTO, "how entries are packed"),
    Option("verify", Verify, None, "default: stream for copy, readback for move"),
    Option("on_conflict", OnConflict, OnConflict.FAIL, "default: fail"),
    Option("checksum", bool, False, "compare content where sizes are equal, not times", since=2),
    Option("symlinks", Symlinks, Symlinks.KEEP, "default: keep", since=2),
    Option("hard_links", HardLinks, HardLinks.COPY, "default: copy", since=2),
    Option("xattrs", bool, False, "extended attributes and ACLs, too", at_target=True, since=2),
    Option(
        "special_bits", bool, False, "setuid, setgid and sticky bits, too", at_target=True, since=2
    ),
    Option(
        "preallocate",
        bool,
        False,
        "reserve the disk space of files of 1 MiB and more before they are written",
        at_target=True,
        since=3,
    ),
    Option("streams", int, 0, "1 to 32; default: as measured", most=32),
)
#: The version of the options that this engine knows.
OPTIONS_VERSION = max(option.since for option in OPTIONS)


class Progress(NamedTuple):
    """A snapshot of the counters; `files_…` count all entries except folders."""

    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    files_skipped: int = 0
    files_failed: int = 0


class ParcelReport(NamedTuple):
    """A report of one parcel's state; `manifest` is set once the parcel is verified."""

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
    """How a transfer ended; `status` is "done" or "partial", any other end raises an error."""

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
    #: The folders that were made on the way to the target, and the target's, outermost first.
    folders_made: tuple[str, ...] = ()
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
    #: Folders above it that other users can write to, and so replace a folder on the way to it.
    exposed: tuple[str, ...] = ()


class HostKey(NamedTuple):
    """A host's public key, as a line to pin, with its fingerprint to compare."""

    line: str
    fingerprint: str


#: Characters of a path that is shown, at most: the systems' own PATH_MAX.
SHOWN_PATH = 4096


def display_path(path: str) -> str:
    """Return a path as text that any log, JSON or database can hold.

    Inside the engine names are `os.fsdecode` strings. Bytes that are not UTF-8, and
    control characters, become backslash escapes. Of a path of over SHOWN_PATH characters the
    middle is left out: a host may name many of them.
    """
    shown = show(path if len(path) <= SHOWN_PATH else _ends_of(path))
    return shown if len(shown) <= SHOWN_PATH else _ends_of(shown)


def _ends_of(text: str) -> str:
    half = SHOWN_PATH // 2
    return f"{text[: half - 1]}…{text[len(text) - half :]}"
