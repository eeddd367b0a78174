"""A transfer of one user's on a shared host, and what must be true of it whatever others do.

`Scene` has a source and a target that mallory may write to, and beside them what
only the runner may touch. `judge` is the oracle.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

from engine.errors import EngineError
from tests.hostile.shared_host import CHECKOUT, USERS, Host, Program, home, python
from tests.rig.waiting import wait_until

_NUMBERS = count(1)
#: Each file of a source: its name, and bytes that are in no other place.
FILES = {
    f"reel_{number % 3}/f{number:03}": b"genuine %03d " % number * 2500 for number in range(60)
}
#: And one that goes in a parcel of its own, so that a transfer can be stopped between two parcels.
FILES["reel_9/large.mov"] = b"genuine large " * 300_000
SECRET = b"only the runner may read this"
#: Processes that live as long as the host does.
_RESIDENT = (b"cat\0", b"sshd: ")
#: Exit statuses that the command line has.
STATUSES = {0, 1, 2, 3, 4, 5, 6, 130}
#: Seconds in which nothing of an ended transfer is left.
GOING_SECONDS = 10.0


#: Prints the id of the transfer that these words of the command line name.
_TRANSFER_ID = """
import sys
from engine.cli.arguments import request, transfer_parser
print(request(transfer_parser("", "").parse_args(sys.argv[1:])).transfer_id)
"""


class Fact(NamedTuple):
    """What of a path must not change."""

    mode: int
    uid: int
    content: bytes


class Scene:
    """One test's folder on the host, the runner's own: `src`, `pub` and `precious`.

    `bits` is the mode of `pub`, the target's folder; `owner` is whose the source is.
    """

    def __init__(self, host: Host, runner: str, bits: int = 0o1777, owner: str = "") -> None:
        self.host, self.runner = host, runner
        self.path = f"/tmp/s{next(_NUMBERS)}"
        self.source, self.target = f"{self.path}/src", f"{self.path}/pub"
        self.precious = f"{self.path}/precious"
        uid, source_uid = USERS[runner], USERS[owner or runner]
        top = host.there(self.path)
        for relative, content in FILES.items():
            write(top / "src" / relative, content)
        write(top / "precious" / "key", SECRET)
        for name, data in FILES.items():  # Under the names of the source, and of the same size.
            write(top / "precious" / "twin" / name, SECRET.ljust(len(data), b"."))
        (top / "precious" / "empty").mkdir()
        (top / "pub").mkdir()
        for path in (top, *top.rglob("*")):
            mine = source_uid if path.is_relative_to(top / "src") else uid
            os.chown(path, mine, mine)
        host.there(self.precious).chmod(0o700)
        host.there(self.target).chmod(bits)
        self._staging_name = ""
        self._before = self._untouchable()

    # -- what the runner does ---------------------------------------------------------

    def cli(self, *words: str, source: str = "", target: str = "") -> Program:
        """Start the runner's transfer, from `src` to `pub` if nothing else is said."""
        ends = ["--from", source or self.source, "--to", target or self.target]
        return self.host.cli(self.runner, *ends, *words)

    def interrupted(self, user: str = "") -> Path:
        """Run a transfer half-way, as the runner or another user; its staging folder."""
        words = ["--from", self.source, "--to", self.target, "--resume", "--bwlimit", "2M"]
        with self.host.cli(user or self.runner, *words) as program:
            wait_until(lambda: self._has_proven() or not program.runs, 60)
            assert program.runs, program.said()
            program.send(15)
            status, said = program.finish()
        assert status == 130, said
        return self.staging()

    def _has_proven(self) -> bool:
        try:
            return b'"parcel"' in (self.staging() / "journal").read_bytes()
        except FileNotFoundError:
            return False

    def staging(self) -> Path:
        """The staging folder of the runner's transfer, where the test finds it."""
        return self.host.there(self.target) / self.staging_name()

    def staging_name(self) -> str:
        """What the command line calls the folder; its host's own eyes tell, before it is made."""
        if not self._staging_name:
            ends = ["--from", self.source, "--to", self.target]
            line = [*python(), "-c", _TRANSFER_ID, *ends]
            status, said = self.host.run(self.runner, line, cwd=CHECKOUT)
            assert status == 0, said
            self._staging_name = f".ketter-{said.split()[-1]}.part"
        return self._staging_name

    # -- what mallory does --------------------------------------------------------------

    def engine_as_mallory(self, code: str, *words: str) -> None:
        """Run some Python as mallory that uses the engine itself, as she has the checkout, too."""
        status, said = self.host.run("mallory", [*python(), "-c", code, *words], cwd=CHECKOUT)
        assert status == 0, said

    # -- the oracle ---------------------------------------------------------------------

    def judge(self, status: int, said: str, *, moved: bool = False) -> None:
        """All that must be true once the transfer has ended like that."""
        assert status in STATUSES, (status, said)
        assert_printable(said)
        self.assert_untouched()
        self.assert_genuine(status, moved)
        self.assert_nothing_runs()

    def assert_untouched(self) -> None:
        """What lies beside source and target is as it was."""
        assert self._untouchable() == self._before

    def assert_genuine(self, status: int, moved: bool) -> None:
        """Each file is at the source, or, moved and proven, at the target; none is replaced."""
        source, target = self.host.there(self.source), self.host.there(self.target)
        for name, content in FILES.items():
            if (source / name).exists():
                assert (source / name).read_bytes() == content, f"{name} is changed at the source"
                continue
            assert moved, f"{name} is gone from the source of a copy"
            assert (target / name).read_bytes() == content, f"{name} is gone, and not delivered"
        if status == 0:
            for name, content in FILES.items():
                assert (target / name).read_bytes() == content, f"{name}: done, and not genuine"

    def assert_nothing_runs(self) -> None:
        """No process is left on the host but those that live as long as it does."""

        def left() -> list[bytes]:
            running = self.host.processes().values()
            return [line for line in running if line and not line.startswith(_RESIDENT)]

        wait_until(lambda: not left(), GOING_SECONDS)

    def _untouchable(self) -> Mapping[str, Fact]:
        roots = [self.precious, *(f"{home(name)}/kept" for name in USERS)]
        return {path: fact for root in roots for path, fact in facts(self.host.there(root)).items()}

    def close(self) -> None:
        """Remove the test's folder."""
        shutil.rmtree(self.host.there(self.path), ignore_errors=True)


def facts(root: Path) -> dict[str, Fact]:
    """What is at and below a path."""
    found = {}
    for path in (root, *root.rglob("*")) if root.exists() else ():
        info = path.lstat()
        content = b""
        if stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).digest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.fsencode(path.readlink())
        found[str(path)] = Fact(info.st_mode, info.st_uid, content)
    return found


def write(path: Path, content: bytes) -> None:
    """Write a file with a fixed time, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_600_000_000, 1_600_000_000))


def assert_printable(said: str) -> None:
    """Every message is a line of printable text, and no traceback is among them."""
    for line in said.splitlines():
        assert line.isprintable(), repr(line[:300])
        assert len(line) < 1500, line[:300]
    assert said.count("\r") == 0, repr(said[:300])
    assert "Traceback" not in said, said[-2000:]


def codes() -> set[str]:
    """Every code that an error of the engine has."""
    waiting, found = [EngineError], set()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if code := getattr(kind, "code", ""):
            found.add(code)
    return found
