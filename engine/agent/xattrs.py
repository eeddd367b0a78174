"""Extended attributes and POSIX ACLs, as one blob that goes from file to file.

A blob is empty, or in big-endian order:

    u16 count
    count times, names ascending: u16 size of the name, name, u32 size of the value, value

On Linux, `user.*` and the two POSIX ACLs (xattr(7), acl(5)) are carried. `security.*` and
`trusted.*` are not: they are the host's own judgement of a file (capabilities, labels, what
overlayfs keeps), and a blob that could set them could give a program root's rights. The rest of
`system.*`, such as NFSv4 ACLs, is not either. A POSIX ACL names users by their numbers, and these
travel as they are: the same number may belong to another user at the other host.

On macOS all attributes are carried but those that the system guards for itself; its ACLs are not
attributes and are not carried. That part follows getxattr(2) of macOS and was never run there.
Names are not translated between the two systems: an attribute that the other system cannot have
counts as refused.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Any

#: The most bytes of all names and values, without resource forks; and of a resource fork.
MAX_BYTES, MAX_FORK = 1 << 20, 16 << 20
MAX_COUNT = 4096
#: The most bytes of a name: XATTR_NAME_MAX of linux/limits.h. macOS has 127.
MAX_NAME = 255

_COUNT, _NAME, _VALUE = struct.Struct(">H"), struct.Struct(">H"), struct.Struct(">I")
_FORK = b"com.apple.ResourceFork"
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
#: Never carried, on any platform: privileges, and attributes that macOS lets no program set.
_GUARDED = (b"security.", b"trusted.", b"system.")
_GUARDED_APPLE = (b"com.apple.macl", b"com.apple.provenance", b"com.apple.rootless")

#: Errors for a missing attribute. ENOATTR of macOS is 93, for which Python has no name.
_ABSENT = (errno.ENODATA, 93)
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
#: Errors for more names or a longer value than Linux returns (64 KiB), or than MAX_FORK.
_TOO_BIG = (errno.E2BIG, errno.ERANGE)
#: Errors by which a file or its file system refuses an attribute; others mean a bad disk or a bug.
_NOT_TAKEN = (
    *_ABSENT, *_UNSUPPORTED, *_TOO_BIG, errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EACCES,
    errno.EROFS, errno.EINVAL, errno.ENAMETOOLONG,
)  # fmt: skip
_TOO_LARGE = "extended attributes of more than 1 MiB (resource forks: 16 MiB) are not carried"
_TOO_SHORT = "the blob ends too early"


def read(fd: int) -> bytes:
    """Pack the carried attributes of an open file or folder as a blob; b"" if it has none.

    Raises XATTRS_TOO_LARGE if they exceed MAX_BYTES, MAX_FORK or MAX_COUNT, and OSError if they
    cannot be read. `fd` must be open for reading.
    """
    system, total = _system(), 0
    pieces: list[bytes] = []
    for name in sorted(_names(system, fd)):
        try:
            value = system.value(fd, name)
        except OSError as error:
            if error.errno in _ABSENT:  # Removed since the listing.
                continue
            if error.errno in _TOO_BIG:
                raise AgentError("XATTRS_TOO_LARGE", _TOO_LARGE) from error
            raise
        total += _weight(name, value)
        if total > MAX_BYTES or len(value) > MAX_FORK or len(pieces) == MAX_COUNT:
            raise AgentError("XATTRS_TOO_LARGE", _TOO_LARGE)
        pieces.append(_NAME.pack(len(name)) + name + _VALUE.pack(len(value)) + value)
    return _COUNT.pack(len(pieces)) + b"".join(pieces) if pieces else b""


def apply(fd: int, blob: bytes, acls: bool = True) -> list[str]:
    """Give an open file or folder the attributes of the blob, and remove its other carried ones.

    Without `acls`, its ACLs stay as they are. The removal matters for new files: they inherit an
    ACL from their folder, which the source did not have. Returns the names that it
    did not take (read back) or did not give up, in the blob's order. Raises BAD_REQUEST, before it
    changes anything, if `read` cannot have made the blob.

    Call it before the mode is set (only root sets `user.*` without write access; the source's mode
    leaves the source's ACL as it is) and before the times (a resource fork may change them). Call
    it for a folder once its entries are in it: they would inherit its default ACL.
    """
    wanted = decode(blob)
    system = _system()
    failed = []
    keeps = () if acls else _ACLS
    for name in _names(system, fd):
        if name not in (*wanted, *keeps) and not _done(system, fd, name, None):
            failed.append(name)
    # ACLs come last: they may take this user's own access away.
    for name in sorted(wanted.keys() - keeps, key=lambda name: (name in _ACLS, name)):
        if not system.carries(name) or not _done(system, fd, name, wanted[name]):
            failed.append(name)
    return [os.fsdecode(name) for name in sorted(failed)]


def decode(blob: bytes) -> dict[bytes, bytes]:
    """Unpack a blob from another host; raises BAD_REQUEST if `read` cannot have made it."""
    if not blob:
        return {}
    try:
        return _decode(blob)
    except ValueError as error:
        raise AgentError("BAD_REQUEST", f"extended attributes: {error}") from None


def _decode(blob: bytes) -> dict[bytes, bytes]:
    count = _number(blob, 0, _COUNT)
    if not 0 < count <= MAX_COUNT:
        raise ValueError("their number is out of bounds")
    attributes: dict[bytes, bytes] = {}
    at, total, last = _COUNT.size, 0, b""
    for _ in range(count):
        name, at = _piece(blob, at, _NAME)
        value, at = _piece(blob, at, _VALUE)
        if not name or len(name) > MAX_NAME or b"\0" in name or name <= last:
            raise ValueError("a name is impossible or out of order")
        if not _carried(name):
            raise ValueError("a name is not one of those that are carried")
        total += _weight(name, value)
        if total > MAX_BYTES or len(value) > MAX_FORK:
            raise ValueError("they are too large")
        attributes[name] = value
        last = name
    if at != len(blob):
        raise ValueError("the blob holds more than was announced")
    return attributes


def _piece(blob: bytes, at: int, size: struct.Struct) -> tuple[bytes, int]:
    length = _number(blob, at, size)
    at += size.size
    if length > len(blob) - at:
        raise ValueError(_TOO_SHORT)
    return blob[at : at + length], at + length


def _number(blob: bytes, at: int, size: struct.Struct) -> int:
    if size.size > len(blob) - at:
        raise ValueError(_TOO_SHORT)
    number: int = size.unpack_from(blob, at)[0]
    return number


def _weight(name: bytes, value: bytes) -> int:
    return len(name) + (0 if name == _FORK else len(value))


def _carried(name: bytes) -> bool:
    """True if an attribute of that name may be in a blob, from any platform."""
    return name in _ACLS or not (name.startswith(_GUARDED) or name in _GUARDED_APPLE)


def _names(system: _Linux, fd: int) -> list[bytes]:
    """The names of the carried attributes of a file; none where none can be kept."""
    try:
        return [name for name in system.names(fd) if system.carries(name)]
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return []
        if error.errno in _TOO_BIG:
            raise AgentError("XATTRS_TOO_LARGE", _TOO_LARGE) from error
        raise


def _done(system: _Linux, fd: int, name: bytes, value: bytes | None) -> bool:
    """Set an attribute, or remove it if `value` is None; true if that took effect."""
    try:
        if value is None:
            system.drop(fd, name)
            return True
        system.put(fd, name, value)
        return system.value(fd, name) == value
    except OSError as error:
        if error.errno not in _NOT_TAKEN:
            raise
        return value is None and error.errno in _ABSENT


class _Linux:
    """The four system calls of Linux, as Python has them."""

    def carries(self, name: bytes) -> bool:
        # No other name may reach the kernel: `btrfs.`, `ceph.` and others change the storage.
        return name in _ACLS or name.startswith(b"user.")

    def names(self, fd: int) -> list[bytes]:
        return [os.fsencode(name) for name in os.listxattr(fd)]

    def value(self, fd: int, name: bytes) -> bytes:
        return os.getxattr(fd, name)

    def put(self, fd: int, name: bytes, value: bytes) -> None:
        os.setxattr(fd, name, value)

    def drop(self, fd: int, name: bytes) -> None:
        os.removexattr(fd, name)


class _Apple(_Linux):
    """The four system calls of macOS: all have `options`, two a `position` in the fork."""

    def carries(self, name: bytes) -> bool:
        return _carried(name) and name not in _ACLS

    def names(self, fd: int) -> list[bytes]:
        return _filled("flistxattr", [fd], [0]).split(b"\0")[:-1]

    def value(self, fd: int, name: bytes) -> bytes:
        return _filled("fgetxattr", [fd, name], [0, 0])

    def put(self, fd: int, name: bytes, value: bytes) -> None:
        import ctypes

        _call("fsetxattr", ctypes.c_int, fd, name, value, ctypes.c_size_t(len(value)), 0, 0)

    def drop(self, fd: int, name: bytes) -> None:
        import ctypes

        _call("fremovexattr", ctypes.c_int, fd, name, 0)


def _filled(function: str, before: list[Any], after: list[Any]) -> bytes:
    """Return the bytes that a call of libc writes into a buffer; a first call gives their size."""
    import ctypes

    size = _call(function, ctypes.c_ssize_t, *before, None, ctypes.c_size_t(0), *after)
    if size > MAX_FORK:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    buffer = ctypes.create_string_buffer(size + 1)
    room = ctypes.c_size_t(size + 1)
    size = _call(function, ctypes.c_ssize_t, *before, buffer, room, *after)
    return buffer.raw[:size]


def _call(function: str, result: Any, *arguments: Any) -> int:
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), function)
    call.restype = result
    answer: int = call(*arguments)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def _system() -> _Linux:
    return _Apple() if sys.platform == "darwin" else _Linux()
