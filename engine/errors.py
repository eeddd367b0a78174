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
│   └── NoPython
├── SourceMissing
├── SourceChanged
├── PermissionDenied
├── RootMissing
├── TargetExists
├── DeliveredGone
├── TargetBusy
├── NoSpace
├── VerifyFailed
├── HostTrouble             no memory, too many open files: it may pass
├── DiskError               a disk or a file system that errs
├── AgentFailed             the far program broke: a bug or a broken host
├── AgentLost               it was killed
├── Cancelled
│   └── Interrupted         likewise, but to be gone on with
└── Replaced                a newer attempt runs this transfer

`retry` tells the caller what to do next: "transient" (try again later),
"permanent" (trying again changes nothing) or "needs_person" (a person must
act first). Exit codes are the CLI's and are documented in docs/engine.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

TRANSIENT = "transient"
PERMANENT = "permanent"
NEEDS_PERSON = "needs_person"


class EngineError(Exception):
    """A transfer could not be done; the message is one sentence for a person."""

    code = "FAILED"
    exit_code = 1
    retry = PERMANENT
    #: Whether what has arrived was left at the target, to go on from.
    kept = False
    #: Whether it is about the target's host or the source's, where that is known.
    of_target: bool | None = None


class BadRequest(EngineError):
    """The request cannot be carried out as it stands."""

    code = "BAD_REQUEST"
    exit_code = 2


class PathOutsideRoot(BadRequest):
    """A path leads out of the root it must stay below."""

    code = "PATH_OUTSIDE_ROOT"


class Overlap(BadRequest):
    """Source and target are the same folder, or one lies inside the other."""

    code = "TARGET_OVERLAPS_SOURCE"


class ConnectError(EngineError):
    """No usable connection to a host."""

    code = "CONNECT_FAILED"
    exit_code = 5
    retry = TRANSIENT


class HostUnreachable(ConnectError):
    """The host's name is unknown or no answer came from it in time."""

    code = "HOST_UNREACHABLE"


class ConnectionRefused(ConnectError):
    """The host is there, but nothing listens on the port."""

    code = "CONNECTION_REFUSED"


class ConnectionLost(ConnectError):
    """The connection broke after it had been made."""

    code = "CONNECTION_LOST"


class Stalled(ConnectError):
    """The connection stands, but nothing has moved for too long."""

    code = "STALLED"


class AuthFailed(ConnectError):
    """The host refused the credential."""

    code = "AUTH_FAILED"
    retry = NEEDS_PERSON


class HostKeyUnknown(ConnectError):
    """The host's key is not known here, so it is not trusted."""

    code = "HOST_KEY_UNKNOWN"
    retry = NEEDS_PERSON


class HostKeyChanged(ConnectError):
    """The host shows another key than the one that is known."""

    code = "HOST_KEY_CHANGED"
    retry = NEEDS_PERSON


class NoPython(ConnectError):
    """The host has no Python >= 3.8 to run the agent."""

    code = "NO_PYTHON"
    retry = NEEDS_PERSON


class SourceMissing(EngineError):
    """The source path does not exist."""

    code = "SOURCE_MISSING"
    #: Whether the folder is there in which it should be.
    folder_there = False


class SourceChanged(EngineError):
    """A source entry changed while it was read, so no digest of it means anything."""

    code = "SOURCE_CHANGED"
    retry = TRANSIENT


class PermissionDenied(EngineError):
    """The user at the host may not read or write there."""

    code = "PERMISSION_DENIED"
    retry = NEEDS_PERSON


class RootMissing(EngineError):
    """A portal's root folder does not exist; only folders below one at a target are made."""

    code = "ROOT_MISSING"
    retry = NEEDS_PERSON


class DeliveredGone(EngineError):
    """An archive that was delivered is gone; what is left at the source was in it."""

    code = "DELIVERED_GONE"
    retry = NEEDS_PERSON


class TargetExists(EngineError):
    """The target holds something different, and the policy is to fail."""

    code = "TARGET_EXISTS"


class TargetBusy(EngineError):
    """Another transfer with the same staging folder is still at work there."""

    code = "TARGET_BUSY"
    retry = TRANSIENT


class NoSpace(EngineError):
    """The target's disk has no room."""

    code = "NO_SPACE"
    exit_code = 6
    retry = NEEDS_PERSON


class VerifyFailed(EngineError):
    """What arrived is not what was sent."""

    code = "CHECKSUM_MISMATCH"
    exit_code = 4


class HostTrouble(EngineError):
    """A machine cannot do now what it usually can: no memory, a network share that is away."""

    code = "HOST_TROUBLE"
    retry = TRANSIENT


class DiskError(EngineError):
    """A disk or a file system errs in a way that trying again may not mend."""

    code = "DISK_ERROR"
    retry = NEEDS_PERSON


class AgentFailed(EngineError):
    """The program at a host broke in a way nobody foresaw."""

    code = "AGENT_FAILED"
    retry = NEEDS_PERSON


class AgentLost(EngineError):
    """The program at a host was killed."""

    code = "AGENT_LOST"
    retry = TRANSIENT


class Cancelled(EngineError):
    """Somebody asked for the transfer to stop."""

    code = "CANCELLED"
    exit_code = 130


class Interrupted(Cancelled):
    """Somebody asked for the transfer to stop, and means to go on with it."""

    code = "INTERRUPTED"
    retry = TRANSIENT


class Replaced(EngineError):
    """A newer attempt runs this transfer, so this one must stop."""

    code = "REPLACED"


def of_this_machine(error: BaseException) -> HostTrouble:
    """What an error of the system means that the engine met on its own machine."""
    said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return HostTrouble(f"this machine is in trouble: {said or type(error).__name__}")


@contextmanager
def on_this_machine() -> Iterator[None]:
    """Have an error of the system that is met within, or in a function so decorated, be named."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise of_this_machine(error) from error


def _tree(base: type[EngineError]) -> dict[str, type[EngineError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_tree(child))
    return found


#: Code -> class, for errors that an agent reports by code.
BY_CODE: dict[str, type[EngineError]] = _tree(EngineError)


def from_code(code: str, message: str) -> EngineError:
    """The error for a code an agent sent; a code without a class of its own keeps its code."""
    error = BY_CODE.get(code, EngineError)(message)
    error.code = code
    return error
