"""The transfers in which an account lies: a source, a target and a canary, and who may see them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.hostile.account import Account, Ended
from tests.hostile.scene import STATUSES, assert_printable, facts, write
from tests.rig.project import PROJECT
from tests.rig.waiting import wait_until

LARGE = 80 << 20
KEPT = "the target keeps the data that arrived"


class World:
    """A folder with `src`, `dst` and what beside them must stay as it is."""

    def __init__(self, root: Path, scenario: str, mode: str) -> None:
        self.root, self.scenario = root, scenario
        self.words = ["--mode", mode]
        self.mode = mode
        self.source, self.target = root / "src", root / "dst"
        write(root / "canary" / "file", b"canary")
        dice = random.Random(7)
        for number in range(20):
            write(self.source / f"r{number % 3}" / f"f{number:02}", dice.randbytes(3000))
        write(self.source / "r3" / "large", dice.randbytes(3 << 20))
        (self.source / "empty").mkdir()
        _PREPARE.get(scenario, lambda _: None)(self)
        self._keep_genuine()
        self._canary = facts(root / "canary")

    def ends(self, account: Account, role: str) -> list[str]:
        """The command line's two ends; the one of that role is the account's."""
        more = ("/r3/large", "/") if self.scenario == "file" else ("", "")
        ends = [Path(f"{self.source}{more[0]}"), Path(f"{self.target}")]
        shown = [
            account.url(path) if of == role else str(path)
            for of, path in zip(("source", "target"), ends, strict=True)
        ]
        return ["--from", shown[0], "--to", shown[1] + more[1], *self.words, *account.access]

    def interrupt(self, account: Account, role: str) -> None:
        """Have an honest transfer stop half-way, then change a file that has arrived."""
        interrupt(self, self.ends(account, role))
        changed = self.source / "r0" / "f00"
        changed.write_bytes(b"changed")
        os.utime(changed, (1_700_000_000, 1_700_000_000))
        self._keep_genuine()

    def _keep_genuine(self) -> None:
        """Copy the source, to compare with later; holes stay holes."""
        copy = self.root / "genuine"
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.source), str(copy)], check=True)
        self._genuine = {path.relative_to(copy): path for path in copy.rglob("*") if path.is_file()}

    # -- the oracle ---------------------------------------------------------------------

    def judge(self, ended: Ended, staging_may_stay: bool) -> None:
        """All that must be true, whatever one end said."""
        assert ended.status in STATUSES, ended
        assert_printable(ended.said)
        assert facts(self.root / "canary") == self._canary
        assert {path.name for path in self.root.iterdir()} <= {"canary", "src", "dst", "genuine"}
        self._assert_genuine(ended)
        if not staging_may_stay:
            left = [*self.target.glob(".ketter-*")] if self.target.exists() else []
            # After a lost connection it stays, and the message says so.
            assert not left or KEPT in ended.said, ended

    def _assert_genuine(self, ended: Ended) -> None:
        """No file is lost, and what is called done is at the target."""
        wanted = self._genuine
        if self.scenario == "file":
            wanted = {name: path for name, path in wanted.items() if name.name == "large"}
        for name, genuine in wanted.items():
            there = self.target / (name.name if self.scenario == "file" else name)
            if (self.source / name).exists():
                assert same(self.source / name, genuine), f"{name} is changed at the source"
            elif self.scenario != "archive":
                assert self.mode == "move", f"{name} is gone from the source of a copy"
                assert same(there, genuine), f"{name} is gone, and was not delivered"
            else:
                assert list(self.target.glob("*.zip")), f"{name} is gone, and there is no archive"
            if ended.status == 0 and self.scenario != "archive":
                assert same(there, genuine), f"{name}: done, and not there"


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes; large ones are compared by size and two places."""
    if one.stat().st_size != other.stat().st_size:
        return False
    if one.stat().st_size >= LARGE:
        with one.open("rb") as first, other.open("rb") as second:
            return first.read(1 << 20) == second.read(1 << 20)
    return one.read_bytes() == other.read_bytes()


def _same(world: World) -> None:
    shutil.copytree(world.source, world.target)
    world.words += ["--checksum", "--on-conflict", "overwrite"]


def _archive(world: World) -> None:
    world.words += ["--strategy", "archive"]


def _slices(world: World) -> None:
    with (world.source / "huge").open("wb") as file:
        file.truncate(LARGE)
    world.words += ["--streams", "2", "--bwlimit", "200M"]


def _names(world: World) -> None:
    for name in ("UPPER", "upper", "Ä", "n" * 200):
        write(world.source / "names" / name, name.encode())


def _resumed(world: World) -> None:
    world.words += ["--resume", "--verify", "readback"]


_PREPARE: dict[str, Callable[[World], None]] = {
    "same": _same,
    "archive": _archive,
    "slices": _slices,
    "names": _names,
    "resumed": _resumed,
}


def interrupt(world: World, ends: list[str]) -> None:
    """Have an honest transfer interrupted half-way."""
    with subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *ends, "--bwlimit", "600k"],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:

        def has_proven() -> bool:
            found = world.target.glob(".ketter-*/journal")
            return process.poll() is not None or any(b'"parcel"' in p.read_bytes() for p in found)

        wait_until(has_proven)
        assert process.poll() is None, "it was done too soon"
        process.send_signal(signal.SIGTERM)
