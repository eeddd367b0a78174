"""Names that a target cannot hold: what a folder does to names, and which are reported."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.agent.target.name_rules import NameRules, probe
from engine.plan.name_check import NameCheck

ROOT = Path(__file__).resolve().parents[2]
PLAIN = NameRules(255, folds_case=False, normalises=False)
FOLDING = PLAIN._replace(folds_case=True)
NORMALISING = PLAIN._replace(normalises=True)
APPLE = NameRules(255, folds_case=True, normalises=True, utf8_only=True)
NFD, NFC = "cafe\u0301".encode(), "caf\u00e9".encode()


def codes(rules: NameRules, *names: bytes) -> list[str]:
    found = NameCheck(rules).check(names)
    return [found[place][0] if place in found else "" for place in range(len(names))]


TWINS = ["NAME_COLLISION"] * 2


@pytest.mark.parametrize(
    ("rules", "names", "expected"),
    [
        (PLAIN, [b"a", b"A", NFD, NFC, b"\xff"], [""] * 5),
        (PLAIN, [b"n" * 255, b"n" * 256], ["", "NAME_TOO_LONG"]),
        (PLAIN, [b"\xc3\xa9" * 127, b"\xc3\xa9" * 128], ["", "NAME_TOO_LONG"]),
        (FOLDING, [b"Clip.mov", b"clip.mov"], TWINS),
        (FOLDING, [b"clip.mov", b"clip.mox"], ["", ""]),
        (FOLDING, ["ÄRA".encode(), "ära".encode()], TWINS),
        (FOLDING, ["straße".encode(), b"STRASSE"], TWINS),
        (FOLDING, ["\u212a".encode(), b"k"], TWINS),
        (FOLDING, [NFD, NFC], ["", ""]),
        (FOLDING, [b"A\xff", b"a\xff", b"a\xfe"], [*TWINS, ""]),
        (NORMALISING, [NFD, NFC], TWINS),
        (NORMALISING, [NFD.upper(), NFC, b"a", b"A"], [""] * 4),
        (NORMALISING, [b"caf\xe9", NFC], ["", ""]),
        (APPLE, ["CAFE\u0301".encode(), NFC], TWINS),
        (APPLE, ["\u1f80".encode(), "\u1f00\u03b9".encode()], TWINS),
        (APPLE, [b"\xff", b"a", b"A\xff"], ["NAME_NOT_POSSIBLE", "", "NAME_NOT_POSSIBLE"]),
        (APPLE, [b"\xed\xa0\x80"], ["NAME_NOT_POSSIBLE"]),
        (APPLE, [b"a", b"b", b"A", b"c", b"B"], [*TWINS, "NAME_COLLISION", "", "NAME_COLLISION"]),
        (APPLE, [b"n" * 256, b"N" * 256, b"x"], ["NAME_TOO_LONG", "NAME_TOO_LONG", ""]),
        (APPLE, [], []),
    ],
)
def test_names_that_the_target_cannot_store_are_reported(
    rules: NameRules, names: list[bytes], expected: list[str]
) -> None:
    assert codes(rules, *names) == expected


def test_a_collision_message_lists_the_name_and_those_it_collides_with() -> None:
    check = NameCheck(APPLE)

    found = check.check([b"Clip.mov", b"x", b"clip.mov"])
    assert found[0][1].startswith("Clip.mov and clip.mov would be one at the target")
    assert found[2][1].startswith("clip.mov and Clip.mov would be one at the target")
    assert "cafe\\u0301 and café" in check.check([NFD, NFC])[0][1]
    many = [format(i, "08b").replace("0", "a").replace("1", "A").encode() for i in range(256)]
    found = check.check(many)
    assert len(found) == 256
    last = "AAAAAAAA, aaaaaaaa, aaaaaaaA, aaaaaaAa and 252 more would be one at the target"
    assert found[255][1].startswith(last)
    assert check.check([b"n\n" * 150])[0][1].startswith("n\\nn\\n")
    assert "n\\xff" in check.check([b"n\xff"])[0][1]


def test_names_in_different_folders_do_not_collide() -> None:
    check = NameCheck(APPLE)

    assert check.check([b"clip"]) == check.check([b"CLIP"]) == {}


def test_reported_collisions_equal_those_of_comparing_every_pair_of_names() -> None:
    chance = random.Random(7)
    letters = ["a", "A", "e", "E", "\u0301", "é", "É", "ß", "s", "S", "\u0345", "\u0323"]

    def key(name: bytes, rules: NameRules) -> str:
        text = name.decode()
        for _ in range(2):
            text = unicodedata.normalize("NFC", text) if rules.normalises else text
            text = text.casefold() if rules.folds_case else text
        return text

    for rules in (FOLDING, NORMALISING, APPLE):
        for _ in range(200):
            names = list({"".join(chance.choices(letters, k=3)).encode() for _ in range(30)})
            keys = [key(name, rules) for name in names]
            found = NameCheck(rules).check(names)
            assert set(found) == {i for i, own in enumerate(keys) if keys.count(own) > 1}


def test_a_name_check_without_folding_does_not_import_unicodedata() -> None:
    text = (
        "import sys; from engine.agent.target.name_rules import NameRules\n"
        "from engine.plan.name_check import NameCheck\n"
        "names = [b'n%d' % i for i in range(9999)]\n"
        "NameCheck(NameRules(255, False, False)).check(names)\n"
        "sys.exit('unicodedata' in sys.modules)"
    )

    subprocess.run([sys.executable, "-S", "-c", text], cwd=ROOT, timeout=20, check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An ordinary folder."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_probe_of_an_ordinary_folder_finds_plain_name_rules(folder: int) -> None:
    assert probe(folder) == PLAIN
    assert os.listdir(folder) == []


def test_a_name_probe_of_a_removed_folder_raises_file_not_found(
    folder: int, tmp_path: Path
) -> None:
    tmp_path.rmdir()

    with pytest.raises(FileNotFoundError):
        probe(folder)


def test_a_failed_name_probe_leaves_no_files(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "stat", broken)

    with pytest.raises(OSError, match="Input/output"):
        probe(folder)
    assert os.listdir(folder) == []


class Disk(NamedTuple):
    """What a file system does to names; `units` if it counts UTF-16 and not bytes."""

    folds: bool
    normalises: bool
    utf8_only: bool
    units: bool

    def key(self, name: bytes) -> bytes:
        """What a name is found by; OSError if it cannot be."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            if self.utf8_only:
                raise OSError(errno.EILSEQ, "") from None
            text = name.decode("utf-8", "surrogateescape")
        if (len(text.encode("utf-16-le", "surrogatepass")) // 2 if self.units else len(name)) > 255:
            raise OSError(errno.ENAMETOOLONG, "")
        text = unicodedata.normalize("NFC", text) if self.normalises else text
        return (text.lower() if self.folds else text).encode("utf-8", "surrogateescape")


class Served:
    """The kernel's side of a disk: one folder of empty files, by fuse.h's protocol 7.31."""

    #: To requests that need more than a bare answer; FORGET and its like get none at all.
    LOOKUP, GETATTR, MKNOD, UNLINK, OPEN, STATFS, RELEASE, INIT = 1, 3, 8, 10, 14, 17, 18, 26
    OPENDIR, READDIR, RELEASEDIR = 27, 28, 29
    UNANSWERED = (2, 36, 42)

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.files: dict[bytes, tuple[int, bytes]] = {}
        self.last = 1

    def serve(self, fd: int) -> None:
        """Answer until the disk is unmounted."""
        with suppress(OSError):
            while True:
                request = os.read(fd, 1 << 18)
                _, operation, unique, node = struct.unpack_from("<IIQQ", request)
                if operation in self.UNANSWERED:
                    continue
                try:
                    answer, error = self.answer(operation, node, request[40:]), 0
                except OSError as problem:
                    answer, error = b"", problem.errno or errno.EIO
                os.write(fd, struct.pack("<IiQ", 16 + len(answer), -error, unique) + answer)

    def answer(self, operation: int, node: int, body: bytes) -> bytes:
        """What one request is answered with."""
        if operation == self.INIT:
            return struct.pack("<IIIIHHIIHHII24x", 7, 31, 0, 0, 0, 0, 1 << 16, 1, 0, 0, 0, 0)
        if operation == self.GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(node)
        if operation in (self.OPEN, self.OPENDIR):
            return bytes(16)
        if operation in (self.RELEASE, self.RELEASEDIR):
            return b""
        if operation == self.STATFS:
            return struct.pack("<5Q4I24x", 9, 9, 9, 9, 9, 4096, 255, 4096, 0)
        if operation == self.READDIR:
            offset = struct.unpack_from("<8xQ", body)[0]
            return b"".join(self.listing()) if offset == 0 else b""
        return self.named(operation, body)

    def named(self, operation: int, body: bytes) -> bytes:
        """As `answer`, for requests about a name in the folder."""
        if operation not in (self.LOOKUP, self.MKNOD, self.UNLINK):
            raise OSError(errno.ENOSYS, "")
        name = body[16 if operation == self.MKNOD else 0 :].rstrip(b"\0")
        key = self.disk.key(name)
        if operation == self.MKNOD:
            self.last += 1
            self.files[key] = (self.last, name)
        elif key not in self.files:
            raise OSError(errno.ENOENT, "")
        elif operation == self.UNLINK:
            del self.files[key]
            return b""
        node = self.files[key][0]
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self.attributes(node)

    def attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == 1 else stat.S_IFREG | 0o600
        owner = (os.getuid(), os.getgid())
        return struct.pack("<6Q10I", node, *[0] * 5, *[0] * 3, mode, 1, *owner, 0, 4096, 0)

    def listing(self) -> Iterator[bytes]:
        for place, (node, name) in enumerate(self.files.values(), 1):
            entry = struct.pack("<QQII", node, place, len(name), stat.S_IFREG >> 12) + name
            yield entry + bytes(-len(entry) % 8)


def serve_alone(disk: Disk, place: str, ready: int) -> None:
    """Mount the disk where only this process sees it, say so, and serve it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: go when the tests go.
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    private = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
    if (
        libc.unshare(0x20000)  # CLONE_NEWNS
        or libc.mount(b"none", b"/", None, ctypes.c_ulong(private), None)
        or libc.mount(b"ketter", os.fsencode(place), b"fuse", ctypes.c_ulong(0), options)
    ):
        os.write(ready, os.strerror(ctypes.get_errno()).encode())
        return
    os.close(ready)
    Served(disk).serve(fd)


@contextmanager
def mounted(disk: Disk, place: Path) -> Iterator[int]:
    """The top folder of a disk that does that to names."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount a disk that folds names, and it needs /dev/fuse")
    told, ready = os.pipe()
    # A process of its own: `os.fpathconf` keeps Python's lock while it waits for the answer.
    pid = os.fork()
    if pid == 0:
        try:
            os.close(told)
            serve_alone(disk, str(place), ready)
        finally:
            os._exit(0)
    os.close(ready)
    try:
        with os.fdopen(told, "rb") as pipe:
            problem = pipe.read().decode()
        if problem:
            pytest.skip(f"no disk that folds names can be mounted here: {problem}")
        fd = os.open(f"/proc/{pid}/root{place}", os.O_RDONLY | os.O_DIRECTORY)
        yield fd
        os.close(fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("disk", "rules"),
    [
        (Disk(False, False, False, False), PLAIN),
        (Disk(True, True, True, False), APPLE),
        (Disk(True, False, True, True), NameRules(765, True, False, True)),
        (Disk(False, True, False, False), NORMALISING),
        (Disk(False, False, True, False), NameRules(255, False, False, True)),
    ],
    ids=["nothing", "apple", "windows", "normalising", "utf8"],
)
def test_a_name_probe_finds_the_rules_of_a_disk_and_predicts_its_refusals(
    tmp_path: Path, disk: Disk, rules: NameRules
) -> None:
    """A real mount, whose file system is ours; no other that folds can be counted on."""
    with mounted(disk, tmp_path) as fd:
        assert probe(fd) == rules
        assert os.listdir(fd) == []
        check = NameCheck(rules)
        for names in (
            [b"Clip", b"clip"], [NFD, NFC], [NFD.upper(), NFC], [b"a", b"b"], [b"\xff", b"x"],
            [b"n" * 255, b"m" * 200], ["\u3042".encode() * 100, b"x"],
        ):  # fmt: skip
            assert bool(check.check(names)) == (not can_hold(fd, names)), names


def can_hold(fd: int, names: list[bytes]) -> bool:
    """Whether a folder can hold files of all the names; it is empty afterwards."""
    made = []
    try:
        for name in names:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd))
            made.append(name)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.EILSEQ, errno.ENAMETOOLONG):
            raise
    finally:
        for name in made:
            os.unlink(name, dir_fd=fd)
    return len(made) == len(names)


EXT4 = """
mkfs.ext4 -q -O casefold disk && mkdir top && mount -o loop disk top || exit 1
mkdir top/folds && chattr +F top/folds && echo ready && exec sleep 60
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("mkfs.ext4", "chattr", "unshare")),
    reason="needs mkfs.ext4, chattr and unshare",
)
def test_a_name_probe_finds_that_a_casefold_folder_of_ext4_folds_names(tmp_path: Path) -> None:
    with open(tmp_path / "disk", "wb") as disk:
        disk.truncate(8 << 20)
    command = ["unshare", "--mount", "sh", "-c", EXT4]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                pytest.skip("this kernel mounts no ext4 with casefold (CONFIG_UNICODE)")
            fd = os.open(f"/proc/{holder.pid}/root{tmp_path}/top/folds", os.O_RDONLY)
            try:
                rules = probe(fd)
                assert rules[:3] == APPLE[:3]
                assert os.listdir(fd) == []
                assert not can_hold(fd, [b"Clip", b"clip"])
            finally:
                os.close(fd)
        finally:
            holder.kill()
