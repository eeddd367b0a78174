"""Fresh clones as a stranger makes them: where, by whom, and in which environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ketter_site import servers
from tests.rig.project import PROJECT
from tests.rig.waiting import wait_until

ROOT = os.geteuid() == 0
#: An ordinary user of every machine, with no home of its own; None is whoever runs the tests.
ORDINARY = 65534 if ROOT else None
#: A demo small enough to be run often.
SMALL = ("--files", "60", "--large-mib", "2")
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: A first minute that takes so long does not end at all.
LIMIT_SECONDS = 300


def stranger_env(**changes: str | None) -> dict[str, str]:
    """What a fresh shell has, with how this machine's pip finds packages; None removes one."""
    env = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    env |= {"PATH": stranger_path(), "LANG": "C.UTF-8", "TERM": "dumb"}
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def stranger_path() -> str:
    """The standard PATH; with the tests' own Python where the system has none that will do."""
    if any(shutil.which(f"python3.{minor}", path=STANDARD_PATH) for minor in range(11, 15)):
        return STANDARD_PATH
    return f"{STANDARD_PATH}:{Path(os.path.realpath(sys.executable)).parent}"


def as_user(user: int | None) -> list[str]:
    """What to put before a command so that a user runs it."""
    if user is None or not ROOT:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


@dataclass
class Clone:
    """A clone in a folder, and the user who works in it (None: who runs the tests)."""

    folder: Path
    user: int | None = None
    env: dict[str, str] = field(default_factory=stranger_env)
    umask: int = 0o022

    def popen(self, *argv: str, before: Sequence[str] = (), **env: str) -> subprocess.Popen[str]:
        """Start a command in the clone, as its user."""
        return subprocess.Popen(
            [*before, *as_user(self.user), *argv],
            cwd=self.folder,
            env={**self.env, **env},
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )

    def run(
        self, *argv: str, before: Sequence[str] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone to its end; stdout holds both streams."""
        process = self.popen(*argv, before=before, **env)
        try:
            said, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate(timeout=60)
            said += f"\n(not at its end after {LIMIT_SECONDS} s)"
            return subprocess.CompletedProcess(argv, 124, said)
        return subprocess.CompletedProcess(argv, process.returncode, said)

    def demo(self, **env: str) -> subprocess.CompletedProcess[str]:
        """The demo, as README has it, with less to send."""
        return self.run("bash", "deploy/demo.sh", "--exit", *SMALL, **env)

    def processes(self) -> list[str]:
        """The command lines of what still runs in this clone."""
        mark = os.fsencode(self.folder) + b"/"
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                line = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if mark in line and int(place.name) != os.getpid():
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    @property
    def sockets(self) -> Path:
        """Where its servers' sockets are while they run."""
        return servers.socket_folder(self.folder / "var")


def clone_to(folder: Path, *, user: int | None = None, changes: Mapping[str, str] = {}) -> Clone:
    """A fresh clone of this checkout, with what is changed and not yet committed, too."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(PROJECT), "-c", f"safe.directory={PROJECT}"]
    subprocess.run([*git, "clone", "-q", str(PROJECT), str(folder)], check=True)
    for listing in (
        ["diff", "--name-only", "-z", "HEAD"],
        ["ls-files", "-zo", "--exclude-standard"],
    ):
        listed = subprocess.run([*git, *listing], check=True, capture_output=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            take(PROJECT / name, folder / name)
    for name, text in changes.items():
        (folder / name).write_text(text)
    if user is not None:
        subprocess.run(["chown", "-R", f"{user}:{user}", str(folder)], check=True)
    return Clone(folder, user)


def take(source: Path, target: Path) -> None:
    """Bring one path of the checkout to the clone: changed, new, or removed."""
    if source.is_symlink() or not source.is_dir():
        target.unlink(missing_ok=True)
    if source.is_file() and not source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


class Venvs:
    """Copies of an installed .venv, by hard links; one clone after another has the same copy.

    A .venv's Python finds itself by where it lies, so that each clone has one of its own.
    """

    def __init__(self, installed: Path, store: Path) -> None:
        self._installed = installed
        self._store = store
        self._names = count()
        self._spare: list[Path] = []

    def lend(self, clone: Clone, *, closed: bool = False) -> None:
        """Have a .venv in the clone; `closed`: a true copy, for its owner alone."""
        own = clone.folder / ".venv"
        here = clone.folder.stat().st_dev == self._installed.stat().st_dev
        if closed or not here:
            subprocess.run(["cp", "-a", str(self._installed), str(own)], check=True)
            subprocess.run(["chmod", "-R", "go-rwx" if closed else "go+rX", str(own)], check=True)
        elif self._spare:
            self._spare.pop().rename(own)
        else:
            subprocess.run(["cp", "-al", str(self._installed), str(own)], check=True)

    def take_back(self, clone: Clone, *, closed: bool = False) -> None:
        """Take an unharmed .venv out of a clone that goes."""
        own = clone.folder / ".venv"
        here = clone.folder.stat().st_dev == self._installed.stat().st_dev
        if here and not closed and (own / "ketter-installed").exists():
            spare = self._store / f"spare-{next(self._names)}"
            own.rename(spare)
            self._spare.append(spare)


def ready(clone: Clone, up: subprocess.Popen[str]) -> dict[str, Any]:
    """What `up --ready-file ready` writes once it serves; fails with its output if it ends."""
    file = clone.folder / "ready"
    wait_until(lambda: file.exists() or up.poll() is not None, seconds=120)
    assert file.exists(), up.communicate()[0]
    return dict(json.loads(file.read_text()))


def assert_done(clone: Clone, done: subprocess.CompletedProcess[str]) -> None:
    """A first minute that went well: DONE, and nothing left but the clone."""
    assert done.returncode == 0, done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("DONE  ")]) == 1
    assert "Traceback" not in done.stdout
    assert_nothing_left(clone)


def assert_nothing_left(clone: Clone) -> None:
    """No process of the clone, and no folder of sockets, after at most some seconds."""
    deadline = time.monotonic() + 30
    while clone.processes() or clone.sockets.exists():
        assert time.monotonic() < deadline, (clone.processes(), clone.sockets)
        time.sleep(0.1)


def assert_says(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A first minute that cannot be: a status, and a sentence that says what to do."""
    assert done.returncode not in {0, 124}, done.stdout
    assert "Traceback" not in done.stdout
    for word in words:
        assert word in done.stdout
