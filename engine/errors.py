"""Every way a transfer can fail, as one tree.

EngineError                 code, exit_code, retry
├── BadRequest              the request itself is wrong
│   ├── PathOutsideRoot
│   └── Overlap
├── ConnectError            no usable connection
│   ├── HostUnreachable
│   ├── ConnectionRefused
│   ├── ConnectionLost
│   ├── Stalled
│   ├── AuthFailed
│   ├── HostKeyUnknown
│   ├── HostKeyChanged
│   ├── ShellFailed         the login succeeds, but the account runs no program for us
│   └── NoPython
├── SourceMissing
├── SourceChanged
├── PermissionDenied
├── RootMissing
├── RootMoved               a symlink at or above the root leads to another folder than before
├── TargetExists
├── DeliveredGone
├── TargetBusy
├── StagingNotOurs
├── NoSpace
├── VerifyFailed
├── HostTrouble             no memory, too many open files: may pass by itself
├── DiskError               a disk or a file system reports an error
├── AgentFailed             the agent broke: a bug or a broken host
├── AgentLost               the agent was killed
├── Cancelled
│   └── Interrupted         stopped, to be resumed later
└── Replaced                a newer attempt runs this transfer

`retry` tells the caller what to do next: "transient" (try again later),
"permanent" (trying again changes nothing) or "needs_person" (a person must
act first). Exit codes are the CLI's and are documented in docs/engine.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from engine.agent.wire import AgentError

TRANSIENT = "transient"
PERMANENT = "permanent"
NEEDS_PERSON = "needs_person"


class EngineError(Exception):
    """A transfer failed; the message is one sentence for people."""

    code = "FAILED"
    exit_code = 1
    retry = PERMANENT
    #: True if the target keeps the data that arrived, so that a later run can resume.
    kept = False
    #: True if the error is about the target's host, False if the source's, None if unknown.
    of_target: bool | None = None


class BadRequest(EngineError):
    """The request itself is wrong."""

    code = "BAD_REQUEST"
    exit_code = 2


class PathOutsideRoot(BadRequest):
    """A path leads out of the root it must stay below."""

    code = "PATH_OUTSIDE_ROOT"


class Overlap(BadRequest):
    """Source and target are the same folder, or one lies inside the other."""

    code = "TARGET_OVERLAPS_SOURCE"


class ConnectError(EngineError):
    """The worker has no usable connection to a host."""

    code = "CONNECT_FAILED"
    exit_code = 5
    retry = TRANSIENT


class HostUnreachable(ConnectError):
    """The host's name is unknown, or the host did not answer in time."""

    code = "HOST_UNREACHABLE"


class ConnectionRefused(ConnectError):
    """The host answers, but no server listens on the port."""

    code = "CONNECTION_REFUSED"


class ConnectionLost(ConnectError):
    """An established connection broke."""

    code = "CONNECTION_LOST"


class Stalled(ConnectError):
    """The connection is open, but the agent is silent, or does not get on, for too long."""

    code = "STALLED"


class AuthFailed(ConnectError):
    """The host refused the credential."""

    code = "AUTH_FAILED"
    retry = NEEDS_PERSON


class HostKeyUnknown(ConnectError):
    """The worker does not know the host's key, so it does not trust the host."""

    code = "HOST_KEY_UNKNOWN"
    retry = NEEDS_PERSON


class HostKeyChanged(ConnectError):
    """The host shows a key that differs from the known one."""

    code = "HOST_KEY_CHANGED"
    retry = NEEDS_PERSON


class ShellFailed(ConnectError):
    """The login succeeds, but the account's shell does not start the agent."""

    code = "SHELL_FAILED"
    retry = NEEDS_PERSON


class NoPython(ConnectError):
    """The host has no Python 3.8 or newer to run the agent."""

    code = "NO_PYTHON"
    retry = NEEDS_PERSON


class SourceMissing(EngineError):
    """The source path does not exist."""

    code = "SOURCE_MISSING"
    #: True if the folder exists that should hold the source.
    folder_there = False


class SourceChanged(EngineError):
    """A source entry changed while it was read, so its digest proves nothing."""

    code = "SOURCE_CHANGED"
    retry = TRANSIENT


class PermissionDenied(EngineError):
    """The user at the host may not read or write a path."""

    code = "PERMISSION_DENIED"
    retry = NEEDS_PERSON


class RootMissing(EngineError):
    """A portal's root folder does not exist; an agent makes only folders below a target's root."""

    code = "ROOT_MISSING"
    retry = NEEDS_PERSON


class RootMoved(EngineError):
    """A portal's root is another folder than on record; a person must say which is right."""

    code = "ROOT_MOVED"
    retry = NEEDS_PERSON


class DeliveredGone(EngineError):
    """A delivered archive is gone; it held the entries that are left at the source."""

    code = "DELIVERED_GONE"
    retry = NEEDS_PERSON


class TargetExists(EngineError):
    """The target holds something different, and the conflict policy is to fail."""

    code = "TARGET_EXISTS"


class TargetBusy(EngineError):
    """Another transfer still works in the same staging folder."""

    code = "TARGET_BUSY"
    retry = TRANSIENT


class StagingNotOurs(EngineError):
    """The entry with the staging folder's name was not made by this transfer."""

    code = "STAGING_NOT_OURS"
    retry = NEEDS_PERSON


class NoSpace(EngineError):
    """The target's disk has too few free bytes or inodes."""

    code = "NO_SPACE"
    exit_code = 6
    retry = NEEDS_PERSON


class VerifyFailed(EngineError):
    """The data that arrived differs from the data that was sent."""

    code = "CHECKSUM_MISMATCH"
    exit_code = 4


class HostTrouble(EngineError):
    """A machine fails for a while at what it usually can do: no memory, a network share away."""

    code = "HOST_TROUBLE"
    retry = TRANSIENT


class DiskError(EngineError):
    """A disk or a file system reports an error that a retry may not cure."""

    code = "DISK_ERROR"
    retry = NEEDS_PERSON


class AgentFailed(EngineError):
    """The agent broke in an unforeseen way: a bug, or a broken host."""

    code = "AGENT_FAILED"
    retry = NEEDS_PERSON


class AgentLost(EngineError):
    """The agent was killed."""

    code = "AGENT_LOST"
    retry = TRANSIENT


class Cancelled(EngineError):
    """The caller asked the transfer to stop."""

    code = "CANCELLED"
    exit_code = 130


class Interrupted(Cancelled):
    """The caller asked the transfer to stop, and will resume it."""

    code = "INTERRUPTED"
    retry = TRANSIENT


class Replaced(EngineError):
    """A newer attempt runs this transfer, so this attempt must stop."""

    code = "REPLACED"


def of_this_machine(error: BaseException) -> HostTrouble:
    """Wrap a local system error as HostTrouble."""
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    shown = text or type(error).__name__
    return HostTrouble(f"an error on the machine that runs the transfer: {shown}")


@contextmanager
def on_this_machine() -> Iterator[None]:
    """Convert OSError and MemoryError raised inside to HostTrouble; a decorator, too.

    An AgentError, for a malformed message of an agent, becomes AgentFailed.
    """
    try:
        yield
    except AgentError as error:
        raise AgentFailed(str(error)) from error
    except (OSError, MemoryError) as error:
        raise of_this_machine(error) from error


def _tree(base: type[EngineError]) -> dict[str, type[EngineError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_tree(child))
    return found


#: Error code -> class, for errors that an agent reports by code.
BY_CODE: dict[str, type[EngineError]] = _tree(EngineError)


#: The codes that an agent may report. Others are the worker's own, which no host may make it
#: believe: that a person cancelled, or that a host's key has changed.
AGENT_CODES = frozenset(
    (
        "AGENT_FAILED",
        "BAD_ARCHIVE",
        "BAD_REQUEST",
        "CHECKSUM_MISMATCH",
        "CONNECTION_LOST",
        "DELIVERED_GONE",
        "DISK_ERROR",
        "HOST_TROUBLE",
        "IO_ERROR",
        "KIND_NOT_CARRIED",
        "LINK_NOT_FOLLOWED",
        "LINK_NOT_POSSIBLE",
        "NAME_NOT_POSSIBLE",
        "NAME_RESERVED",
        "NAME_TOO_LONG",
        "NO_SPACE",
        "PATH_OUTSIDE_ROOT",
        "PERMISSION_DENIED",
        "REPLACED",
        "ROOT_MISSING",
        "ROOT_MOVED",
        "SOURCE_CHANGED",
        "STAGING_NOT_OURS",
        "TARGET_BUSY",
        "TARGET_EXISTS",
        "TIME_NOT_CARRIED",
        "VANISHED",
        "XATTRS_NOT_KEPT",
        "XATTRS_TOO_LARGE",
    )
)


def from_code(code: str, message: str) -> EngineError:
    """Return the error for a code that an agent sent; a code without a class keeps its code."""
    error = BY_CODE.get(code, EngineError)(message)
    error.code = code
    return error
