"""One transfer of the contract: a tree, a file system at one end of it, and what has to arrive."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from engine.agent.wire import is_staging
from tests.filesystems import kinds, shims
from tests.filesystems.kinds import SOURCE, Kind
from tests.rig.facts import TOP, Description, describe
from tests.rig.project import PROJECT
from tests.rig.trees import MTIME

#: Where another file system begins, in kinds that have one below.
BELOW = "reel_1"
MIB = 1 << 20
#: The kinds of entries, as `facts` name them.
SYMLINKS, OTHERS = "link", ("file", "folder")
#: Begins of names under which an open file that is removed stays.
HIDDEN = (".nfs", ".fuse_hidden")


class Ended(NamedTuple):
    """How a command ended; `codes` counts the codes of its warnings."""

    status: int
    result: dict[str, Any]
    said: str

    @property
    def codes(self) -> Counter[str]:
        return Counter(re.findall(r"^warning: .*\((\w+)\)$", self.said, re.MULTILINE))

    @property
    def failed(self) -> set[str]:
        """The paths of the entries that were not delivered."""
        return {failure["path"] for failure in self.result.get("failures", ())}


class Place:
    """A source and a target, one of them on a file system of that kind."""

    def __init__(self, kind: Kind, role: str, at: Path, plain: Path, stack: ExitStack) -> None:
        self.kind, self.role, self._stack = kind, role, stack
        self._at = at
        own, other = at / "ours", plain
        for folder in (own, other):
            if not os.statvfs(folder if folder.exists() else folder.parent).f_flag & os.ST_RDONLY:
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)
        self.other = other
        self.source = (own if role == SOURCE else other) / "a"
        self.target = (other if role == SOURCE else own) / "b"
        if kind.read_only and role == SOURCE:
            self.source = at / "a"
        self._stale = plain / "stale-once"
        self._words = kind.words.replace("ESTALE", f"ESTALE={self._stale}")
        self._has_below = False

    @property
    def base(self) -> Path:
        """The folder in which the target is made."""
        return self.target.parent

    def settle(self) -> None:
        """Have no call fail that fails once: it is not what the test is about."""
        self._stale.touch()

    def make_below(self) -> None:
        """Have another file system begin below the place, if the kind has one."""
        if not self.kind.below or self._has_below:
            return
        self._has_below = True
        here = self.source if self.role == SOURCE else self.target
        here.mkdir(exist_ok=True)
        words = kinds.put_below(self._stack, self.kind, here / BELOW, self.other / "spare")
        self._words = ";".join(filter(None, (self._words, words)))

    def build(self, large: int = 0) -> Description:
        """Make the source; what it is."""
        self.make_below()
        if not self.kind.read_only:
            build(self.source, self.kind if self.role == SOURCE else None, large)
        return self.given_away()

    def given_away(self) -> Description:
        """What the source is, once all of it has its owner."""
        self.give_away()
        return describe(self.source)

    def give_away(self) -> None:
        """Have everything belong to the user as which root acts, where root is another one."""
        if "SQUASH" in self.kind.words:
            here = self.source if self.role == SOURCE else self.base
            subprocess.run(["chown", "-R", "65534:65534", str(here)], check=True)

    def start(self, *options: str | Path, point: str = "") -> subprocess.Popen[bytes]:
        """Start a transfer; with a point, one that is killed there."""
        module = ["tests.filesystems.striking", point] if point else ["engine.cli"]
        words = ["--from", self.source, "--to", self.target, "--json", *options]
        return self._command([*module, *map(str, words)])

    def _command(self, words: list[str]) -> subprocess.Popen[bytes]:
        self.give_away()
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=PROJECT,
            env=shims.environment(self._at, self._words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *options: str | Path, point: str = "") -> Ended:
        """Transfer, and wait for the end; once more after an error that passes by itself.

        So does a job; a person gives the same command with `--resume`.
        """
        done = ended(self.start(*options, point=point))
        if "ESTALE" in self.kind.words and done.result.get("code") == "HOST_TROUBLE":
            assert done.result["kept"], done
            return ended(self.start(*options, "--resume"))
        return done

    def verify(self, manifest: Path, at: Path) -> Ended:
        """Compare a place with a manifest."""
        words = ["engine.cli", "verify", "--manifest", str(manifest), "--at", str(at), "--json"]
        return ended(self._command(words))

    def assert_arrived(
        self, before: Description, but: Collection[str] = (), at: Path | None = None
    ) -> None:
        """Fail unless the target has all that the source had, as far as the kind keeps it."""
        there = describe(at or self.target)
        held = (SYMLINKS,) if self.kind.symlinks else ()
        wanted = {path: one for path, one in before.items() if one.kind in (*OTHERS, *held)}
        wanted = {path: one for path, one in wanted.items() if os.fsdecode(path) not in but}
        assert set(there) == set(wanted), (set(wanted) - set(there), set(there) - set(wanted))
        for path, facts in wanted.items():
            self._compare(path, facts, there[path])

    def _compare(self, path: bytes, wanted: Any, found: Any) -> None:
        alike = ("kind", "size", "sha256", "link") + (("mode",) if self.kind.modes else ())
        if path == TOP or path == BELOW.encode():
            alike = ("kind",)  # Another file system's top has the mode that it had.
        for name in alike:
            one, other = getattr(wanted, name), getattr(found, name)
            assert one == other, (path, name, one, other)
        if path != TOP and wanted.kind == "file" and self.kind.grain:
            apart = abs(wanted.mtime_ns - found.mtime_ns)
            assert apart < self.kind.grain, (path, wanted.mtime_ns, found.mtime_ns)

    def assert_source_is_empty(self) -> None:
        """Fail if anything of a moved source is left, but for the top of what begins below."""
        left = {path.relative_to(self.source).as_posix() for path in self.source.rglob("*")}
        assert left <= {BELOW} if self.role == SOURCE and self.kind.below else not left, left

    def assert_no_debris(self) -> None:
        """Fail if a staging folder, or a file that was hidden, is left."""
        names = [name for _, folders, files in os.walk(self.base) for name in folders + files]
        left = [name for name in names if is_staging(name) or name.startswith(HIDDEN)]
        assert not left, left


def ended(command: subprocess.Popen[bytes], seconds: float = 90) -> Ended:
    """Wait for a command."""
    try:
        out, err = command.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGTERM)
        out, err = command.communicate(timeout=30)
        raise AssertionError((out, err)) from None
    text = out.decode("utf-8", "replace").strip()
    return Ended(
        command.returncode, json.loads(text) if text else {}, err.decode("utf-8", "replace")
    )


def build(root: Path, kind: Kind | None, large: int = 0) -> None:
    """Make a tree that any file system can hold; with links where the kind has them."""
    for number in range(12):
        file = root / f"reel_{number % 3}" / f"clip {number:02} é.dpx"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(20_000 + number))
        file.chmod((0o644, 0o755, 0o600, 0o444)[number % 4])
        os.utime(file, ns=(MTIME, MTIME + number * 1_000_000_007))
    (root / "empty" / "er").mkdir(parents=True, exist_ok=True)
    (root / "none").write_bytes(b"")
    (root / ".hidden").write_bytes(b"hidden")
    with (root / "holes.img").open("wb") as image:
        image.seek(2 * MIB)
        image.write(b"data")
        image.truncate(5 * MIB)
    os.utime(root / "holes.img", ns=(MTIME, MTIME + 1))
    if large:
        (root / "large.mov").write_bytes(os.urandom(large))
    if kind is None or kind.symlinks:
        (root / "link").symlink_to("reel_0")
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o751 if path.name != BELOW else 0o755)
            os.utime(path, ns=(MTIME, MTIME + 5))
