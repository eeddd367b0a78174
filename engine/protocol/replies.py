"""The form of each reply to a command, one class per reply.

Each `read` takes a reply's fields, and raises AgentError (AGENT_FAILED) if one is malformed.
`engine.protocol.commands` lists the commands with their replies.
"""

from __future__ import annotations

from engine.agent.wire import (
    DIGEST,
    AgentError,
)
from engine.protocol.fields import (
    COUNT,
    COUNT_OR_UNKNOWN,
    DIGEST_TEXT,
    ENTRY_FAILURE,
    FLAG,
    NAME,
    NODE,
    NODE_OR_NONE,
    OPTIONAL_FLAG,
    PATH,
    PROBLEM,
    SHOWN,
    SHOWN_NAME,
    EntryProblem,
    Failure,
    Fields,
    Node,
    by_number,
    each,
    name,
    one_of,
    sentence,
    whole,
)
from engine.protocol.lists import listed
from engine.protocol.record import Record

#: The kinds of entry that INSPECT reports.
KINDS = ("absent", "folder", "file", "other")
#: Refused attributes, and exposed folders, that one report names, at most.
_SHOWN_REFUSALS, _SHOWN_FOLDERS = 100, 5


class Nothing(Record):
    """The reply to a command that has nothing to report."""

    @classmethod
    def read(cls, fields: Fields) -> Nothing:
        """Ignore all fields."""
        return cls()


class InspectReply(Record):
    """What the agent found at a place below a root; sizes in bytes, times in ns.

    `linked`: the last name of the path is a symlink. `foreign`: its file system is one of other
    systems, or a program's. `read_only`: it is mounted so. `unmounted`: the folder on the way to
    the place on which the host's /etc/fstab mounts a file system that is not mounted now, if there
    is one. `ancestor_ids` are device and inode of the place and of all folders above it. `exposed`
    are folders above it that other users can write to, and so replace a folder on the way to it.
    """

    kind: str
    real: str
    root: str
    has_root: bool
    below_root: str
    writable: bool
    free: int
    size: int
    free_inodes: int
    read_only: bool
    unmounted: tuple[str, ...]
    name_max: int
    case_folding: bool | None
    left: bool
    linked: bool
    foreign: bool
    cores: int
    host: str
    machine: str
    ancestor_ids: tuple[Node, ...]
    exposed: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The place for people; `real` may hold control characters and 32 KiB."""
        return sentence(self.real)

    @classmethod
    def read(cls, fields: Fields) -> InspectReply:
        """Read all fields; raises AgentError if `ancestor_ids` is empty: they show overlaps."""
        ancestors = fields.get("ancestor_ids", each(NODE))
        if not ancestors:
            raise AgentError("AGENT_FAILED", "protocol error: a place without ancestor_ids")
        return cls(
            kind=fields.get("kind", one_of(*KINDS)),
            real=fields.get("real", PATH),
            root=fields.get("root", PATH),
            has_root=fields.get("has_root", FLAG),
            below_root=fields.get("below_root", NAME),
            writable=fields.get("writable", FLAG),
            free=fields.get("free", COUNT_OR_UNKNOWN),
            size=fields.get("size", COUNT_OR_UNKNOWN),
            free_inodes=fields.get("free_inodes", COUNT_OR_UNKNOWN),
            read_only=fields.get("read_only", FLAG),
            unmounted=fields.get("unmounted", each(SHOWN, 1)),
            name_max=fields.get("name_max", COUNT_OR_UNKNOWN),
            case_folding=fields.get("case_folding", OPTIONAL_FLAG),
            left=fields.get("left", FLAG),
            linked=fields.get("linked", FLAG),
            foreign=fields.get("foreign", FLAG),
            cores=fields.get("cores", COUNT),
            host=fields.get("host", SHOWN_NAME),
            machine=fields.get("machine", name(1024)),
            ancestor_ids=ancestors,
            exposed=fields.get("exposed", each(SHOWN, _SHOWN_FOLDERS)),
        )


class StatReply(Record):
    """One entry as a packed list; an empty list if Ketter does not carry its kind.

    `holes` are bytes of the file that take no room.
    """

    entries: bytes
    holes: int

    @classmethod
    def read(cls, fields: Fields) -> StatReply:
        """Take the list; `entries_of` checks its entry."""
        return cls(listed(fields.blob, 1), fields.get("holes", COUNT))


class HashReply(Record):
    """SHA-256 of entries, one after the other; `gone` are the positions of missing entries.

    `ids` are device and inode of each, None where they identify nothing. `whole` repeats the
    command's argument.
    """

    ids: tuple[Node | None, ...]
    whole: str
    gone: tuple[int, ...]
    digests: bytes

    @classmethod
    def read(cls, fields: Fields) -> HashReply:
        """Read all fields; raises AgentError if an entry has no id, or no whole digest."""
        digests = _digests(fields)
        ids = fields.get("ids", each(NODE_OR_NONE))
        if len(ids) * DIGEST != len(digests):
            raise AgentError("AGENT_FAILED", "protocol error: the number of ids and digests differ")
        gone = fields.get("gone", each(whole(0, len(ids) - 1)))
        return cls(ids, fields.get("whole", NAME), gone, digests)


class ScanReply(Record):
    """The end of a scan, with counts of the links it found.

    `hard_links` are further names of files; `links_skipped` are symlinks left out;
    `links_unknown` are names of hard-linked files that could not be matched, since the source
    keeps no inode numbers. `holes` are bytes of files that take no room. `top` is the source
    folder's own entry, as a packed list.
    """

    hard_links: int = 0
    links_skipped: int = 0
    links_unknown: int = 0
    holes: int = 0
    top: bytes = b""

    @classmethod
    def read(cls, fields: Fields) -> ScanReply:
        """Read all fields; `unpack_entries` checks the list."""
        return cls(
            fields.get("hard_links", COUNT),
            fields.get("links_skipped", COUNT),
            fields.get("links_unknown", COUNT),
            fields.get("holes", COUNT),
            listed(fields.blob, 1),
        )


class SentReply(Record):
    """The source's report of a parcel. `archive` is the SHA-256 of all parcels' bytes, or empty.

    `torn`: an entry failed after a part of it was sent. `failures` are by position in the list.
    """

    parcel: int
    failures: dict[int, Failure]
    torn: bool
    archive: str
    digests: bytes

    @classmethod
    def read(cls, fields: Fields) -> SentReply:
        """Read all fields; raises AgentError for an incomplete digest, or `torn` for no reason."""
        digests, torn = _digests(fields), fields.get("torn", FLAG)
        failures = fields.get("errors", by_number(ENTRY_FAILURE, len(digests) // DIGEST))
        if torn and not failures:
            raise AgentError("AGENT_FAILED", "protocol error: a parcel is torn without a failure")
        archive = fields.get("archive", DIGEST_TEXT)
        return cls(fields.get("sent", COUNT), failures, torn, archive, digests)


class ReceivedReply(Record):
    """The target's report of a parcel: the digest of the list that arrived, and of each entry.

    `refusals` counts attributes that the target's file system refused; `refused` names some.
    """

    parcel: int
    list_digest: str
    failures: dict[int, Failure]
    refused: tuple[str, ...]
    refusals: int
    digests: bytes

    @classmethod
    def read(cls, fields: Fields) -> ReceivedReply:
        """Read all fields; raises AgentError if a digest is incomplete."""
        digests = _digests(fields)
        # A parcel of no slices has no digests, but its file may have an error.
        count = max(1, len(digests) // DIGEST)
        return cls(
            fields.get("got", COUNT),
            fields.get("list", name(2 * DIGEST)),
            fields.get("errors", by_number(ENTRY_FAILURE, count)),
            fields.get("refused", each(SHOWN, _SHOWN_REFUSALS)),
            fields.get("refusals", COUNT),
            digests,
        )


class RemoveReply(Record):
    """How many entries the source removed, and why it kept others."""

    removed: int
    kept: tuple[EntryProblem, ...]

    @classmethod
    def read(cls, fields: Fields) -> RemoveReply:
        """Read both fields."""
        return cls(fields.get("removed", COUNT), fields.get("kept", each(PROBLEM)))


class RemoveFoldersReply(Record):
    """How many folders the source removed, how many are not empty, and why it kept others."""

    removed: int
    full: int
    problems: tuple[EntryProblem, ...]

    @classmethod
    def read(cls, fields: Fields) -> RemoveFoldersReply:
        """Read all fields."""
        return cls(
            fields.get("removed", COUNT),
            fields.get("full", COUNT),
            fields.get("problems", each(PROBLEM)),
        )


class DigestsReply(Record):
    """SHA-256 of entries, one after the other."""

    digests: bytes

    @classmethod
    def read(cls, fields: Fields) -> DigestsReply:
        """Read the digests; raises AgentError if one is incomplete."""
        return cls(_digests(fields))


class FenceOutReply(Record):
    """The label of the helper that the target fenced out: it can write no more."""

    label: str

    @classmethod
    def read(cls, fields: Fields) -> FenceOutReply:
        """Read the label."""
        return cls(fields.get("fence_out", name(255)))


class CompleteReply(Record):
    """The SHA-256 of a file that arrived in slices; `whole` repeats the command's argument."""

    whole: str
    digest: bytes

    @classmethod
    def read(cls, fields: Fields) -> CompleteReply:
        """Read both fields; raises AgentError if there is not one whole digest."""
        digest = _digests(fields)
        if len(digest) != DIGEST:
            raise AgentError("AGENT_FAILED", "protocol error: expected the digest of one file")
        return cls(fields.get("whole", NAME), digest)


class CloseArchiveReply(Record):
    """The SHA-256 of the archive that arrived."""

    digest: str

    @classmethod
    def read(cls, fields: Fields) -> CloseArchiveReply:
        """Read the digest."""
        return cls(fields.get("archive", DIGEST_TEXT))


def _digests(fields: Fields) -> bytes:
    if len(fields.blob) % DIGEST:
        raise AgentError("AGENT_FAILED", "protocol error: incomplete digest")
    return fields.blob
