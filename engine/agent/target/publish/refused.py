"""The entries that could not take their place while a tree was published, each with the reason."""

from __future__ import annotations

import errno
from contextlib import contextmanager

from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Iterator

#: Errors of the system that are about one entry, and that no time mends. All others end the
#: attempt: a later one goes on with what has arrived.
_OF_ONE_ENTRY = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EBUSY,
        errno.ETXTBSY,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EILSEQ,
        errno.EBADMSG,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.EMLINK,
        errno.EFBIG,
        errno.EXDEV,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
    )
)
#: Codes of the same, where an agent found the reason itself.
_CODES = ("PERMISSION_DENIED", "TARGET_EXISTS", "CHECKSUM_MISMATCH")


class Refused:
    """Which entries stay in the staging tree: single ones with all below them, and whole folders.

    A closed folder is one of the target's whose names may not change; a folder in it that the
    target has, too, may be open.
    """

    def __init__(self) -> None:
        self._single: dict[str, AgentError] = {}
        self._closed: dict[str, AgentError] = {}
        self._entered: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._single or self._closed)

    def add(self, path: str, reason: AgentError) -> None:
        """Keep an entry, with all that is below it, in the staging tree."""
        # Without its traceback: there may be a million of them.
        self._single[path] = AgentError(reason.code, str(reason))

    def close(self, path: str, reason: AgentError) -> None:
        """Keep all that was to be put into this folder of the target in the staging tree."""
        self._closed[path] = AgentError(reason.code, str(reason))

    def enter(self, path: str) -> None:
        """Except a folder that the target has from a closed folder above it."""
        self._entered.add(hash(path))

    def leave(self, path: str) -> None:
        """Count a folder that the target had, and has no more, as one of its closed folder."""
        self._entered.discard(hash(path))

    def is_single(self, path: str) -> bool:
        """True if this very entry is refused."""
        return path in self._single

    def is_closed(self, path: str) -> bool:
        """True if nothing can be put into this folder of the target."""
        return path in self._closed

    def reason(self, path: str) -> AgentError | None:
        """Why an entry, or a folder above it, is not published; None if it is."""
        if not self:
            return None
        above, at = "", 0
        while at >= 0:
            at = path.find("/", at + 1)
            here = path if at < 0 else path[:at]
            reason = self._single.get(here)
            if reason is None and hash(here) not in self._entered:
                reason = self._closed.get(above)
            if reason is not None:
                return reason
            above = here
        return None

    @contextmanager
    def noting(self, path: str) -> Iterator[None]:
        """Keep an entry in the staging tree if an error says that it cannot take its place."""
        try:
            yield
        except AgentError as error:
            cause = error.__cause__
            of_it = isinstance(cause, OSError) and cause.errno in _OF_ONE_ENTRY
            if not path or (not of_it and error.code not in _CODES):
                raise
            self.add(path, error)
