"""Extended attributes and ACLs: what is carried, what is refused, what a target does not take."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import struct
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.agent import xattrs
from engine.agent.wire import AgentError
from tests.rig.facts import keeps_attributes

#: Makes an open file or folder: its descriptor.
Make = Callable[..., int]

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
AWKWARD = {
    b"user.empty": b"",
    b"user.binary": bytes(range(256)) * 8,
    b"user.\xff\n": b"x",
    "user.größe".encode(): b"12",
}


def blob_of(*pairs: tuple[bytes, bytes], count: int | None = None) -> bytes:
    """A blob as the module's docstring describes it, in the order given."""
    blob = struct.pack(">H", len(pairs) if count is None else count)
    for name, value in pairs:
        blob += struct.pack(">H", len(name)) + name + struct.pack(">I", len(value)) + value
    return blob


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as linux/posix_acl_xattr.h lays it out: tag, permissions, number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
#: user::rw- user:12345:r-- group::r-- mask::r-- other::---
READER = acl((1, 6, NOBODY), (2, 4, 12345), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
SHARED = acl((1, 7, NOBODY), (2, 4, 12345), (4, 5, NOBODY), (16, 5, NOBODY), (32, 5, NOBODY))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make an open file or folder of that name."""
    opened = []

    def made(name: str = "file", folder: bool = False, below: Path = tmp_path) -> int:
        if folder:
            (below / name).mkdir()
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        opened.append(os.open(below / name, flags, 0o600))
        if not keeps_attributes(opened[0]):
            pytest.skip(f"no extended attributes below {below}")
        return opened[-1]

    yield made
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_user_attributes_arrive_with_their_names_and_values(make: Make, folder: bool) -> None:
    first, second = make("first", folder), make("second", folder)
    for name, value in AWKWARD.items():
        os.setxattr(first, name, value)

    blob = xattrs.read(first)

    assert blob == blob_of(*sorted(AWKWARD.items()))
    assert xattrs.apply(second, blob) == []
    assert {os.fsencode(n): os.getxattr(second, n) for n in os.listxattr(second)} == AWKWARD
    assert xattrs.read(second) == blob


def test_apply_removes_attributes_that_the_source_did_not_have(make: Make) -> None:
    fd = make()
    os.setxattr(fd, "user.old", b"1")
    os.setxattr(fd, "user.kept", b"1")

    assert xattrs.apply(fd, blob_of((b"user.kept", b"2"), (b"user.new", b"3"))) == []

    assert xattrs.read(fd) == blob_of((b"user.kept", b"2"), (b"user.new", b"3"))


def give_acl(path: Path, what: str, value: bytes) -> None:
    """By setfacl if there is one, so that the bytes are not only what we think they are."""
    name = "d:u:12345:r--,d:m::r--" if what == DEFAULT else "u:12345:r--,g::r--,m::r--,o::---"
    if shutil.which("setfacl"):
        subprocess.run(["setfacl", "-m", name, path], check=True, timeout=10)
        return
    try:
        os.setxattr(path, what, value)
    except OSError as error:
        pytest.skip(f"no ACLs below {path}: {error}")


def test_an_access_acl_arrives_and_survives_setting_the_mode(make: Make, tmp_path: Path) -> None:
    first, second = make("first"), make("second")
    give_acl(tmp_path / "first", ACCESS, READER)

    blob = xattrs.read(first)

    assert blob == blob_of((ACCESS.encode(), READER))
    assert xattrs.apply(second, blob) == []
    assert os.fstat(second).st_mode == os.fstat(first).st_mode
    os.fchmod(second, stat.S_IMODE(os.fstat(first).st_mode))
    assert xattrs.read(second) == blob
    if shutil.which("getfacl"):
        command = ["getfacl", "-cn", tmp_path / "second"]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        assert b"user:12345:r--" in shown


def test_the_default_acl_of_a_folder_arrives(make: Make, tmp_path: Path) -> None:
    first, second = make("first", True), make("second", True)
    give_acl(tmp_path / "first", DEFAULT, SHARED)

    assert xattrs.apply(second, xattrs.read(first)) == []

    assert os.getxattr(second, DEFAULT) == os.getxattr(first, DEFAULT)
    make("below", below=tmp_path / "second")
    assert os.listxattr(tmp_path / "second" / "below") == [ACCESS]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_apply_removes_inherited_acls_keeps_mode(make: Make, tmp_path: Path, folder: bool) -> None:
    make("top", True)
    give_acl(tmp_path / "top", DEFAULT, SHARED)
    fd = make("new", folder, below=tmp_path / "top")
    assert os.listxattr(fd)
    os.fchmod(fd, 0o640)

    assert xattrs.apply(fd, b"") == []

    assert os.listxattr(fd) == []
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set what is not carried")
def test_security_and_trusted_attributes_are_neither_carried_nor_removed(make: Make) -> None:
    first, second = make("first"), make("second")
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw, effective
    for fd in (first, second):
        os.setxattr(fd, "security.capability", capability)
        os.setxattr(fd, "trusted.ketter", b"x")

    assert xattrs.read(first) == b""
    assert xattrs.apply(second, b"") == []
    assert sorted(os.listxattr(second)) == ["security.capability", "trusted.ketter"]


GOOD = ((b"user.a", b"1"), (b"user.b", b"two"))


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"\0", "too early"),
        (b"\0\0", "number"),
        (blob_of(*GOOD, count=3), "too early"),
        (blob_of(*GOOD)[:-1], "too early"),
        (blob_of(*GOOD, count=1), "more than"),
        (blob_of(*GOOD) + b"\0", "more than"),
        (blob_of(*GOOD[::-1]), "out of order"),
        (blob_of(GOOD[0], GOOD[0]), "out of order"),
        (blob_of((b"", b"1")), "impossible"),
        (blob_of((b"user.\0", b"1")), "impossible"),
        (blob_of((b"user." + b"n" * 251, b"1")), "impossible"),
        (blob_of((b"security.capability", b"1")), "not one of"),
        (blob_of((b"trusted.overlay.opaque", b"y")), "not one of"),
        (blob_of((b"system.nfs4_acl", b"1")), "not one of"),
        (blob_of((b"system.posix_acl_access2", b"1")), "not one of"),
        (blob_of((b"com.apple.rootless", b"1")), "not one of"),
        (blob_of(*((b"user.%05d" % i, b"") for i in range(4097))), "number"),
        (blob_of(*((b"user.%05d" % i, bytes(1 << 16)) for i in range(16))), "too large"),
        (blob_of((b"com.apple.ResourceFork", bytes(16 << 20) + b"1")), "too large"),
        (blob_of((b"user.a", bytes(2 << 20))), "too large"),
    ],
)
def test_apply_refuses_invalid_blobs_and_changes_nothing(make: Make, blob: bytes, why: str) -> None:
    fd = make()
    os.setxattr(fd, "user.a", b"before")

    with pytest.raises(AgentError, match=why) as caught:
        xattrs.apply(fd, blob)

    assert caught.value.code == "BAD_REQUEST"
    assert xattrs.read(fd) == blob_of((b"user.a", b"before"))


def test_a_mutated_attribute_blob_is_refused_or_well_formed() -> None:
    chance = random.Random(20)
    names = sorted([*AWKWARD, b"com.apple.FinderInfo", ACCESS.encode(), b"user.security.x"])
    whole = blob_of(*((name, b"security.") for name in names))
    refused = 0
    for _ in range(20_000):
        blob = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(blob))
            kind = chance.randrange(4)
            if kind == 0:
                blob[at] = chance.choice((0, 1, 255, chance.randrange(256)))
            elif kind == 1:
                del blob[at : at + chance.randint(1, 8)]
            elif kind == 2:
                blob[at:at] = blob[: chance.randint(1, 40)]
            else:
                blob[at : at + 9] = chance.choice((b"security.", b"trusted.x", b"system.xx"))
        try:
            found = xattrs.decode(bytes(blob))
        except AgentError as error:
            assert error.code == "BAD_REQUEST"  # noqa: PT017 - many times over
            refused += 1
            continue
        if found:
            assert blob_of(*found.items()) == blob
        for name in found:
            assert b"\0" not in name
            assert not name.startswith((b"security.", b"trusted."))
            assert not name.startswith(b"system.") or name.startswith(b"system.posix_acl_")
    assert 10_000 < refused < 20_000


def test_attributes_of_other_systems_are_not_passed_to_the_kernel(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = make()
    tried: list[bytes] = []
    monkeypatch.setattr(os, "setxattr", lambda fd, name, value: tried.append(name))
    names = (b"btrfs.compression", b"com.apple.FinderInfo", b"org.studio.tag", b"user.a")

    failed = xattrs.apply(fd, blob_of(*((name, b"zlib") for name in names)))

    assert failed == [os.fsdecode(name) for name in names]
    assert tried == [b"user.a"]


def test_apply_reports_every_attribute_where_the_file_system_has_none() -> None:
    fd = os.open("/proc/self/comm", os.O_RDWR)
    try:
        assert not keeps_attributes(fd)
        assert xattrs.read(fd) == b""
        assert xattrs.apply(fd, b"") == []
        assert xattrs.apply(fd, blob_of((ACCESS.encode(), READER), *GOOD)) == [
            ACCESS, "user.a", "user.b",
        ]  # fmt: skip
    finally:
        os.close(fd)


def test_an_attribute_without_room_is_reported_others_are_set(make: Make, on_disk: Path) -> None:
    fd = make(below=on_disk)
    pairs = ((b"user.a", b"1"), (b"user.b", bytes(60_000)), (b"user.c", b"3"))

    failed = xattrs.apply(fd, blob_of(*pairs))

    if not failed:
        pytest.skip(f"{on_disk} is on a file system with room for large attributes, unlike ext4")
    assert failed == ["user.b"]
    assert xattrs.read(fd) == blob_of(pairs[0], pairs[2])


def test_apply_reports_an_invalid_acl_and_a_default_acl_on_a_file(make: Make) -> None:
    fd = make()
    blob = blob_of((ACCESS.encode(), b"nonsense"), (DEFAULT.encode(), READER), (b"user.a", b"1"))

    assert xattrs.apply(fd, blob) == [ACCESS, DEFAULT]
    assert xattrs.read(fd) == blob_of((b"user.a", b"1"))


def test_apply_reports_an_attribute_that_reads_back_differently(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = make()
    really = os.getxattr
    monkeypatch.setattr(os, "getxattr", lambda fd, name: really(fd, name)[:2])

    assert xattrs.apply(fd, blob_of(*GOOD)) == ["user.b"]


def test_apply_raises_an_io_error_instead_of_reporting_the_attribute(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "setxattr", broken)

    with pytest.raises(OSError, match="Input/output"):
        xattrs.apply(make(), blob_of(*GOOD))


@pytest.fixture
def roomy() -> Iterator[int]:
    """A file of a file system that takes more attributes than we carry: tmpfs, if it is new."""
    path = f"/dev/shm/ketter-test-{os.getpid()}"
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(("count", "size"), [(20, 60_000), (5000, 0), (15_000, 0)])
def test_read_refuses_too_many_or_too_large_attributes(roomy: int, count: int, size: int) -> None:
    try:
        for number in range(count):
            os.setxattr(roomy, f"user.{number:05}", bytes(size))
    except OSError as error:
        pytest.skip(f"/dev/shm does not take so many: {error}")

    with pytest.raises(AgentError) as caught:
        xattrs.read(roomy)

    assert caught.value.code == "XATTRS_TOO_LARGE"


def as_nobody(path: Path, check: Callable[[int], None]) -> None:
    """Run a check on a file of a user who is not root, as that user, in a child."""
    os.chown(path, 65534, 65534)
    fd = os.open(path, os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            check(fd)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it is, the child must end here
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_apply_sets_an_acl_that_locks_out_the_owner_last(make: Make, tmp_path: Path) -> None:
    ours = make()
    shut = acl((1, 0, NOBODY), (2, 4, 12345), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
    blob = blob_of((ACCESS.encode(), shut), *GOOD)

    def check(fd: int) -> None:
        assert xattrs.apply(fd, blob) == []

    as_nobody(tmp_path / "file", check)
    assert xattrs.read(ours) == blob


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_apply_reports_attributes_of_a_read_only_file(make: Make, tmp_path: Path) -> None:
    os.setxattr(make(), "user.old", b"1")
    (tmp_path / "file").chmod(0o400)

    def check(fd: int) -> None:
        assert xattrs.apply(fd, blob_of(*GOOD)) == ["user.a", "user.b", "user.old"]

    as_nobody(tmp_path / "file", check)


def test_the_macos_attribute_calls_read_apply_and_drop_attributes_on_linux(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux's functions have the same names and ignore the two arguments more: buffers and errors
    are tried, what macOS makes of them is not."""
    first, second = make("first"), make("second")
    monkeypatch.setattr(xattrs, "_system", xattrs._Apple)
    os.setxattr(second, "user.old", b"1")
    assert keeps_attributes(first)
    assert xattrs.read(first) == b""
    for name, value in AWKWARD.items():
        os.setxattr(first, name, value)

    blob = xattrs.read(first)

    assert blob == blob_of(*sorted(AWKWARD.items()))
    assert xattrs.apply(second, blob) == []
    assert xattrs.read(second) == blob
    refused = blob_of((b"com.apple.FinderInfo", bytes(32)), (ACCESS.encode(), READER))
    assert xattrs.apply(second, refused) == ["com.apple.FinderInfo", ACCESS]
    assert xattrs.read(second) == b""
    with pytest.raises(OSError, match="No data available"):
        xattrs._Apple().drop(first, b"user.none")
