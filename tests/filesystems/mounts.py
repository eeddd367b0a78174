"""File systems on which a transfer is tried, made for the test and taken down after it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.rig.sshd import Sshd

IMAGE_BYTES = 400 << 20
#: A user and group that no test runs as.
STRANGER = 64123


class Kind(NamedTuple):
    """A file system: how it is mounted, what it needs, and what it keeps of what is written."""

    mount: Callable[[ExitStack, Path, Path], None]
    programs: tuple[str, ...]
    keeps_owners: bool = True
    links: bool = True
    #: The grain in which it keeps times, in ns.
    grain: int = 1


def _run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()


def _image(folder: Path) -> Path:
    path = folder / "image"
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    return path


def _loop(stack: ExitStack, folder: Path) -> str:
    device = _run("losetup", "-f", "--show", _image(folder))
    stack.callback(_run, "losetup", "-d", device)
    return device


def _unmount(at: Path) -> None:
    until = time.monotonic() + 10
    while subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode:
        if time.monotonic() > until:
            _run("umount", "-l", at)  # Nothing of a test stays mounted, whatever it has open.
            raise AssertionError(f"{at} could not be unmounted: something in it is open")
        time.sleep(0.1)


def _btrfs(stack: ExitStack, folder: Path, at: Path) -> None:
    device = _loop(stack, folder)
    _run("mkfs.btrfs", "-q", "-f", device)
    _run("mount", device, at)


def _ntfs(stack: ExitStack, folder: Path, at: Path) -> None:
    device = _loop(stack, folder)
    _run("mkfs.ntfs", "-qfF", device)
    _run("ntfs-3g", device, at)


def _exfat(stack: ExitStack, folder: Path, at: Path) -> None:
    device = _loop(stack, folder)
    _run("mkfs.exfat", device)
    _run("mount.exfat-fuse", device, at)


def _back(folder: Path) -> Path:
    back = folder / "back"
    back.mkdir()
    return back


def _bindfs(stack: ExitStack, folder: Path, at: Path) -> None:
    _run("bindfs", _back(folder), at)


def _bindfs_forced(stack: ExitStack, folder: Path, at: Path) -> None:
    back = _back(folder)
    owner = [f"--force-user={STRANGER}", f"--force-group={STRANGER}", "-p", "0777"]
    _run("bindfs", *owner, back, at)


def _bindfs_ours(stack: ExitStack, folder: Path, at: Path) -> None:
    _run("bindfs", f"--force-user={os.geteuid()}", _back(folder), at)


def _sshfs(stack: ExitStack, folder: Path, at: Path) -> None:
    server = stack.enter_context(Sshd())
    _run("sshfs", "-F", server.ssh_config, f"{server.host}:{_back(folder)}", at)


KINDS = {
    "btrfs": Kind(_btrfs, ("mkfs.btrfs",)),
    "bindfs": Kind(_bindfs, ("bindfs",)),
    "bindfs of a fixed owner": Kind(_bindfs_forced, ("bindfs",), keeps_owners=False),
    "bindfs of our own": Kind(_bindfs_ours, ("bindfs",), keeps_owners=False),
    "ntfs-3g": Kind(_ntfs, ("mkfs.ntfs", "ntfs-3g"), keeps_owners=False, grain=100),
    "exfat-fuse": Kind(
        _exfat,
        ("mkfs.exfat", "mount.exfat-fuse"),
        keeps_owners=False,
        links=False,
        grain=2 * 10**9,
    ),
    "sshfs": Kind(_sshfs, ("sshfs",), grain=10**9),
}


def missing(kind: Kind) -> str:
    """Why a file system cannot be mounted here; "" if it can."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [name for name in kind.programs if not shutil.which(name, path=path)]
    if lacking:
        return f"{' and '.join(lacking)} not installed (deploy/test.sh installs it as root)"
    return "" if os.path.exists("/dev/fuse") else "there is no /dev/fuse"


@contextmanager
def mounted(kind: Kind, folder: Path) -> Iterator[Path]:
    """A folder with that file system, made in another folder."""
    at = folder / "mounted"
    at.mkdir()
    with ExitStack() as stack:
        kind.mount(stack, folder, at)
        stack.callback(_unmount, at)
        yield at
