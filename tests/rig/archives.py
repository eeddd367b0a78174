"""Archives held against those who read archives: Info-ZIP, libarchive and Python."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.rig.facts import TOP, Description, Facts, assert_same, describe

#: Info-ZIP has no room for longer paths and says so; it tests their content all the same.
INFO_ZIP_PATH = 4096
TOO_LONG = b"warning:  filename too long--truncating."
UTF8_FLAG = 0x800
#: Seconds for one tool with the largest archive.
PATIENCE = 600


def tool(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a tool of the system in a folder, in UTF-8 and in UTC."""
    if shutil.which(str(command[0])) is None:
        missing = f"{command[0]} is not installed: run deploy/test.sh as root once, or install it"
        if sys.platform == "linux":
            pytest.fail(missing)
        pytest.skip(missing)
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )


def members(tree: Description) -> dict[bytes, Facts]:
    """What an archive of a tree must hold, by its members' names."""
    return {
        path + b"/" if facts.kind == "folder" else path: facts
        for path, facts in tree.items()
        if path != TOP
    }


def assert_info_zip_finds_it_whole(archive: Path, tree: Description, scratch: Path) -> None:
    """Fail unless `unzip -t` reads and checks every member."""
    done = tool("unzip", "-tqq", archive, folder=scratch)
    complaints = {line for line in (done.stdout + done.stderr).splitlines() if line.strip()}
    too_long = any(len(name) >= INFO_ZIP_PATH for name in members(tree))
    assert complaints == ({TOO_LONG} if too_long else set())
    assert done.returncode == (1 if too_long else 0)


def assert_libarchive_lists_it(archive: Path, tree: Description, scratch: Path) -> None:
    """Fail unless `bsdtar -t` shows every name, as far as it keeps them apart."""
    done = tool("bsdtar", "-tf", archive, folder=scratch)
    assert (done.returncode, done.stderr) == (0, b"")
    listed = [unescaped(line) for line in done.stdout.splitlines()]
    assert len(listed) == len(members(tree))
    assert set(map(composed, listed)) == set(map(composed, members(tree)))


def unescaped(line: bytes) -> bytes:
    """A name as bsdtar prints it, without its escapes."""
    letters = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b"\\": 92}

    def byte(found: re.Match[bytes]) -> bytes:
        return bytes([letters[found[1]] if found[1] in letters else int(found[1], 8)])

    return re.sub(rb"\\([abtnvfr\\]|[0-7]{3})", byte, line)


def composed(name: bytes) -> bytes:
    """A name in the form in which libarchive gives all that are marked as UTF-8."""
    try:
        return unicodedata.normalize("NFC", name.decode()).encode()
    except UnicodeDecodeError:
        return name


def assert_python_reads_it(archive: Path, tree: Description) -> None:
    """Fail unless Python's zipfile finds every member with its bytes, kind and mode."""
    expected = members(tree)
    types = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "link": stat.S_IFLNK}
    with zipfile.ZipFile(archive) as read:
        found = {name_of(info): info for info in read.infolist()}
        assert len(found) == len(read.infolist())
        assert set(found) == set(expected)
        for name, info in found.items():
            facts = expected[name]
            with read.open(info) as content:  # Its CRC-32 is checked at the end.
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            whole = facts.sha256 or hashlib.sha256(facts.link).hexdigest()
            assert (digest, info.compress_type) == (whole, zipfile.ZIP_STORED), name
            found_mode = info.external_attr >> 16
            assert stat.S_IFMT(found_mode) == types[facts.kind], name
            if facts.kind != "link":
                assert stat.S_IMODE(found_mode) & 0o777 == facts.mode & 0o777, name


def name_of(info: zipfile.ZipInfo) -> bytes:
    """A member's name in bytes; it must be marked as UTF-8 if that is what it is, and only then."""
    name = info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_FLAG else "cp437")
    try:
        name.decode()
    except UnicodeDecodeError:
        assert not info.flag_bits & UTF8_FLAG
    else:
        assert name.isascii() or info.flag_bits & UTF8_FLAG
    return name


def assert_standard(archive: Path, tree: Description, scratch: Path) -> None:
    """Fail unless all three find the tree in the archive; they look at the same time."""
    with ThreadPoolExecutor(2) as beside:
        others = [
            beside.submit(look, archive, tree, scratch)
            for look in (assert_info_zip_finds_it_whole, assert_libarchive_lists_it)
        ]
        assert_python_reads_it(archive, tree)
        for other in others:
            other.result()


def assert_extracts_to(archive: Path, tree: Description, folder: Path) -> None:
    """Fail unless bsdtar makes the tree of the archive, as far as the two can say it.

    libarchive has one form for letters that can be written in two, so that such
    names are not its to tell; it gives paths beyond PATH_MAX no time, and takes
    years before 1970 for years after 2038, for which an archive has no field.
    """
    folder.mkdir()
    # -S: what is all zeros need not be written.
    tool("bsdtar", "-xpSf", archive, folder=folder)
    merged = {composed(path) for path in tree if path != composed(path)}
    expected, found = (apart_from(merged, one) for one in (tree, describe(folder)))
    for path, facts in expected.items():
        seconds = facts.mtime_ns // 10**9
        exact = len(path) < INFO_ZIP_PATH and 0 <= seconds < 1 << 31
        for one in (expected, found):
            if path in one:
                time = one[path].mtime_ns // 10**9 if exact else 0
                one[path] = one[path]._replace(mtime_ns=time)
    assert_same(expected, found, ignore=["hard_links", "xattrs"])


def apart_from(merged: set[bytes], tree: Description) -> Description:
    """A description without its top, and without these paths (as composed) and what is in them."""
    with_inside = tuple(path + b"/" for path in merged)
    return {
        path: facts
        for path, facts in tree.items()
        if path != TOP and not (composed(path) + b"/").startswith(with_inside)
    }
