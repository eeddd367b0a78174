"""Mounts file systems for a test, and takes them down after it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.rig.sshd import Sshd

IMAGE_BYTES = 400 << 20
#: A user and group that no test runs as.
STRANGER = 64123

#: Mounts at a folder (the last argument) what lies in another one; makes `fill` fill it before, if
#: it cannot be written to afterwards.
Fill = Callable[[Path], None]
Mount = Callable[[ExitStack, Path, Path, Fill], None]


def run(*command: str | Path) -> str:
    """Run a program; what it prints. Fails with its words if it does."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()


def unmount(at: Path) -> None:
    """Take a mount down; fails, but takes it down, if something in it is open."""
    until = time.monotonic() + 10
    while subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode:
        if time.monotonic() > until:
            run("umount", "-l", at)  # Nothing of a test stays mounted, whatever it has open.
            raise AssertionError(f"{at} could not be unmounted: something in it is open")
        time.sleep(0.1)


def put_on(stack: ExitStack, at: Path, *command: str | Path) -> None:
    """Mount something at a folder by a command, and take it down with the stack."""
    run(*command)
    stack.callback(unmount, at)


def _image(folder: Path) -> Path:
    path = folder / "image"
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    return path


def _loop(stack: ExitStack, folder: Path) -> str:
    device = run("losetup", "-f", "--show", _image(folder))
    stack.callback(run, "losetup", "-d", device)
    return device


def disk(make: str, *options: str) -> Mount:
    """A file system of the kernel's own, in an image."""

    def mount(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
        device = _loop(stack, folder)
        run(make, *options, device)
        put_on(stack, at, "mount", device, at)

    return mount


def fuse_disk(make: str, options: list[str], program: str) -> Mount:
    """A file system of a FUSE program, in an image."""

    def mount(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
        device = _loop(stack, folder)
        run(make, *options, device)
        put_on(stack, at, program, device, at)

    return mount


def in_memory(kind: str) -> Mount:
    """tmpfs or ramfs."""

    def mount(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
        put_on(stack, at, "mount", "-t", kind, "none", at)

    return mount


def plain(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
    """The disk's own: a shim has the oddities."""


def overlay(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
    """Two layers on a tmpfs; what is below shows through."""
    base = _back(folder)
    put_on(stack, base, "mount", "-t", "tmpfs", "none", base)
    for name in ("lower", "upper", "work"):
        (base / name).mkdir()
    layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
    put_on(stack, at, "mount", "-t", "overlay", "overlay", "-o", layers, at)


def squashfs(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
    """A read-only image of what `fill` makes."""
    fill(_back(folder))
    run("mksquashfs", folder / "back", folder / "image", "-quiet", "-no-progress")
    put_on(stack, at, "mount", "-o", "loop,ro", folder / "image", at)


def _back(folder: Path) -> Path:
    back = folder / "back"
    back.mkdir(exist_ok=True)
    return back


def bindfs(*options: str) -> Mount:
    """A folder, shown again by bindfs."""

    def mount(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
        put_on(stack, at, "bindfs", *options, _back(folder), at)

    return mount


def mergerfs(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
    """Two folders, shown as one."""
    branches = [_back(folder) / name for name in ("one", "two")]
    for branch in branches:
        branch.mkdir()
    put_on(stack, at, "mergerfs", ":".join(map(str, branches)), at)


def sshfs(stack: ExitStack, folder: Path, at: Path, fill: Fill) -> None:
    """A folder behind an SFTP server."""
    server = stack.enter_context(Sshd())
    command = ["sshfs", "-F", server.ssh_config, f"{server.host}:{_back(folder)}", at]
    put_on(stack, at, *command)


def missing(programs: tuple[str, ...]) -> str:
    """Why a file system cannot be mounted here; "" if it can."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [name for name in programs if not shutil.which(name, path=path)]
    if lacking:
        return f"{' and '.join(lacking)} not installed (deploy/test.sh installs it as root)"
    return "" if os.path.exists("/dev/fuse") else "there is no /dev/fuse"
