"""Extended attributes and POSIX ACLs, as one blob that goes from file to file.

A blob is empty, or in big-endian order:

    u16 count
    count times, names ascending: u16 size of the name, name, u32 size of the value, value

Carried are, on Linux, `user.*` and the two POSIX ACLs (xattr(7), acl(5)). Not
`security.*` and `trusted.*`: they are the host's own judgement of a file
(capabilities, labels, what overlayfs keeps), and a blob that could set them could
give a program root's rights. Nor the rest of `system.*`, such as NFSv4 ACLs. A
POSIX ACL names users by their numbers, and these travel as they are: the same
number may be somebody else at the other host.

On macOS all attributes are carried but those the system guards for itself; its
ACLs are no attributes and are not carried. That part follows getxattr(2) of
macOS and was never run there. Names are not translated between the two: what the
one has and the other cannot have counts as not taken.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from typing import Any

from engine.agent.wire import AgentError

#: Bytes of all names and values together, resource forks apart, which have their own limit.
MAX_BYTES, MAX_FORK = 1 << 20, 16 << 20
MAX_COUNT = 4096
#: Bytes of a name: XATTR_NAME_MAX of linux/limits.h. macOS has 127.
MAX_NAME = 255

_COUNT, _NAME, _VALUE = struct.Struct(">H"), struct.Struct(">H"), struct.Struct(">I")
_FORK = b"com.apple.ResourceFork"
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
#: Never carried, whatever the platform: privileges, and what macOS lets nobody set.
_GUARDED = (b"security.", b"trusted.", b"system.")
_GUARDED_APPLE = (b"com.apple.macl", b"com.apple.provenance", b"com.apple.rootless")

#: ENOATTR of macOS is 93, for which Python has no name.
_ABSENT = (errno.ENODATA, 93)
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
#: More names or a longer value than Linux hands out (64 KiB), or than we take.
_TOO_BIG = (errno.E2BIG, errno.ERANGE)
#: The file or its file system does not want an attribute; anything else is a broken disk or a bug.
_NOT_TAKEN = (
    *_ABSENT, *_UNSUPPORTED, *_TOO_BIG, errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EACCES,
    errno.EROFS, errno.EINVAL, errno.ENAMETOOLONG,
)  # fmt: skip
_TOO_LARGE = "extended attributes of more than 1 MiB (resource forks: 16 MiB) are not carried"
_TOO_SHORT = "the blob ends too early"


def supported(fd: int) -> bool:
    """Whether user attributes can be kept there, as far as asking for one tells.

    A full or a read-only file system still says yes. `fd` must be open for reading.
    """
    try:
        _system().value(fd, b"user.ketter")
    except OSError as error:
        # Unlike listing, this also tells where only `security.*` can be kept.
        if error.errno in _UNSUPPORTED:
            return False
        if error.errno not in _ABSENT:
            raise
    return True


def read(fd: int) -> bytes:
    """The carried attributes of an open file or folder as a blob; b"" if it has none.

    XATTRS_TOO_LARGE if they exceed MAX_BYTES, MAX_FORK or MAX_COUNT; OSError
    if they cannot be read. `fd` must be open for reading.
    """
    system, total = _system(), 0
    pieces: list[bytes] = []
    for name in sorted(_names(system, fd)):
        try:
            value = system.value(fd, name)
        except OSError as error:
            if error.errno in _ABSENT:  # Removed since it was listed.
                continue
            if error.errno in _TOO_BIG:
                raise AgentError("XATTRS_TOO_LARGE", _TOO_LARGE) from error
            raise
        total += _weight(name, value)
        if total > MAX_BYTES or len(value) > MAX_FORK or len(pieces) == MAX_COUNT:
            raise AgentError("XATTRS_TOO_LARGE", _TOO_LARGE)
        pieces.append(_NAME.pack(len(name)) + name + _VALUE.pack(len(value)) + value)
    return _COUNT.pack(len(pieces)) + b"".join(pieces) if pieces else b""


def apply(fd: int, blob: bytes) -> list[str]:
    """Give an open file or folder the attributes of the blob and no other carried ones.

    That others go matters for new files: an ACL they inherited from their folder
    was not the source's. Returns the names that it did not take, by reading them
    back, and those it could not get rid of, in the blob's order. BAD_REQUEST,
    before anything is changed, if `blob` is not what `read` makes.

    Call it before the mode is set (only root sets `user.*` without write access;
    the source's mode leaves the source's ACL as it is) and before the times (a
    resource fork may change them); for a folder, once all is in it, which would inherit
    its default ACL.
    """
    wanted = decode(blob)
    system = _system()
    failed = []
    for name in _names(system, fd):
        if name not in wanted and not _done(system, fd, name, None):
            failed.append(name)
    # ACLs come last, because they may take our own access away.
    for name in sorted(wanted, key=lambda name: (name in _ACLS, name)):
        if not system.carries(name) or not _done(system, fd, name, wanted[name]):
            failed.append(name)
    return [os.fsdecode(name) for name in sorted(failed)]


def decode(blob: bytes) -> dict[bytes, bytes]:
    """The attributes of a blob from another host; BAD_REQUEST if `read` cannot have made it."""
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
    """Whether an attribute of that name may be in a blob, from whatever platform."""
    return name in _ACLS or not (name.startswith(_GUARDED) or name in _GUARDED_APPLE)


def _names(system: _Linux, fd: int) -> list[bytes]:
    """The names of the carried attributes that are there; none where there can be none."""
    try:
        return [name for name in system.names(fd) if system.carries(name)]
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return []
        if error.errno in _TOO_BIG:
            raise AgentError("XATTRS_TOO_LARGE", _TOO_LARGE) from error
        raise


def _done(system: _Linux, fd: int, name: bytes, value: bytes | None) -> bool:
    """Set an attribute, or remove it if there is no value; whether it is so now."""
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
    """The four calls, as Python has them."""

    def carries(self, name: bytes) -> bool:
        # Nothing else may reach the kernel: other prefixes (`btrfs.`, `ceph.`) change the storage.
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
    """The four calls of macOS: all have `options`, two a `position` in the resource fork."""

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
    """What a call of libc writes into a buffer, after it has said how much that is."""
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
