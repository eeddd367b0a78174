"""What the soak sends: random trees and orders, the same ones for the same seed and number."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from engine.agent.target.compare import second_names
from tests.rig.trees import MTIME, Entry, snapshot

MIB = 1 << 20
Tree = dict[bytes, Entry]

#: Kinds of trees, and how often they come.
KINDS = {
    "small": 30,
    "mixed": 25,
    "large": 20,
    "file": 8,
    "many": 6,
    "empty": 4,
    "huge": 3,
    "clips": 12,
}
STRATEGIES = {"auto": 6, "zip": 2, "files": 2, "archive": 1}
POLICIES = ("fail", "skip", "overwrite", "overwrite-older", "keep-both")
#: Bytes per second, so that a transfer lasts long enough to be hit.
LIMITS = (0, 0, MIB, 2 * MIB, 4 * MIB)
ODD_NAMES = (
    b".hidden",
    b"umlaut \xc3\xa4\xc3\xb6\xc3\xbc \xe6\x98\xa0.mov",
    b"new\nline.txt",
    b"tab\tand 'quotes' \"both\" $(echo no) `no` \\ back.txt",
    b"-dash",
    b" spaces around ",
    b"n" * 255,
    b"not utf-8 \xff\xfe.raw",
    b"a..b",
)


@dataclass
class Case:
    """One thing to transfer, where it goes, and what must be there afterwards.

    `before` and `there` are the source and the target as they were; `expected` is
    the target after success, and `arrives` are the source's entries that are in it.
    """

    name: str
    kind: str
    order: dict[str, Any]
    source: Path
    target: Path
    before: Tree = field(default_factory=dict)
    there: Tree = field(default_factory=dict)
    expected: Tree = field(default_factory=dict)
    arrives: dict[bytes, bytes] = field(default_factory=dict)
    conflict: bool = False
    rivals: int = 1
    jobs: list[UUID] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """How many bytes the source's files had."""
        return sum(entry.size for entry in self.before.values())

    @property
    def is_move(self) -> bool:
        """Whether the source is to be removed."""
        return str(self.order["mode"]) == "move"

    @property
    def is_archive(self) -> bool:
        """Whether one archive is to be delivered."""
        return str(self.order["strategy"]) == "archive"


def make(seed: int, number: int, roots: dict[str, Path]) -> Case:
    """Draw the case with that number, and put its trees where they belong."""
    dice = random.Random(f"{seed}/job/{number}")
    name = f"{number:05}"
    source_portal, target_portal = dice.choice(list(roots)), dice.choice(list(roots))
    kind = _weighted(dice, KINDS)
    order: dict[str, Any] = {
        "source_portal": source_portal,
        "source_path": f"s{name}",
        "target_portal": target_portal,
        "target_path": dice.choice((f"t{name}", f"t{name}", f"deep/er/t{name}")),
        "mode": dice.choice(("copy", "move")),
        "strategy": _weighted(dice, STRATEGIES),
        "verify": dice.choice(("", "", "stream", "readback")),
        "on_conflict": dice.choice(POLICIES),
        "streams": 3 if kind == "huge" else dice.choice((0, 0, 1, 3)),
        "bandwidth_limit": dice.choice(LIMITS) * {"huge": 8, "clips": 4}.get(kind, 1),
        "priority": dice.randrange(-1, 2),
    }
    source = roots[source_portal] / order["source_path"]
    target = roots[target_portal] / order["target_path"]
    if order["strategy"] == "archive":
        order.update(_for_an_archive(kind, dice))
    case = Case(name, kind, order, source, target)
    build(source, kind, dice)
    if kind == "file":
        order["source_path"] += "/only.bin"
        order["target_path"] += dice.choice(("/", "/only.bin"))
    elif not case.is_archive and dice.random() < 0.25:
        case.conflict = _put_in_the_way(case, dice)
    if not case.is_move and not case.conflict and not case.is_archive and dice.random() < 0.1:
        case.rivals = 2
    case.before, case.there = snapshot(source), snapshot(target)
    _foresee(case)
    return case


def _for_an_archive(kind: str, dice: random.Random) -> dict[str, Any]:
    """What goes together with an archive: a move never overwrites one."""
    if kind in ("file", "empty"):
        return {"strategy": "auto"}
    return {"on_conflict": dice.choice(("fail", "keep-both"))}


def build(root: Path, kind: str, dice: random.Random) -> None:
    """Fill a folder with a tree of a kind."""
    root.mkdir(parents=True)
    if kind == "small":
        _files(root, dice, dice.randrange(5, 120), 8192)
    elif kind == "many":
        _files(root, dice, dice.randrange(800, 2500), 64)
    elif kind == "large":
        for number in range(dice.randrange(1, 4)):
            _write(root / f"clip{number}.mov", dice.randbytes(dice.randrange(MIB, 16 * MIB)), dice)
        _files(root, dice, dice.randrange(0, 20), 4096)
    elif kind == "huge":
        _write(root / "huge.mov", dice.randbytes(dice.randrange(65 * MIB, 80 * MIB)), dice)
        _files(root, dice, dice.randrange(0, 8), 4096)
    elif kind == "clips":  # Parcels enough to lend some.
        for number in range(dice.randrange(24, 48)):
            _write(root / f"c{number:02}.mov", dice.randbytes(dice.randrange(MIB, 3 * MIB)), dice)
    elif kind == "file":
        _write(root / "only.bin", dice.randbytes(dice.randrange(0, 6 * MIB)), dice)
    elif kind == "empty":
        for number in range(dice.randrange(0, 4)):
            (root / f"e{number}" / "emptier").mkdir(parents=True)
    else:
        _mixed(root, dice)


def _mixed(root: Path, dice: random.Random) -> None:
    _files(root, dice, dice.randrange(3, 40), 200_000)
    odd = root / "odd"
    odd.mkdir()
    for name in dice.sample(ODD_NAMES, dice.randrange(2, len(ODD_NAMES))):
        _write(odd / os.fsdecode(name), dice.randbytes(dice.randrange(20_000)), dice)
    (root / "empty" / "emptier").mkdir(parents=True)
    (root / "empty" / "emptier").chmod(0o700)
    (root / "zero.bin").touch()
    (root / "link").symlink_to("zero.bin")
    (root / "odd" / "up").symlink_to("../empty")
    (root / "dangling").symlink_to("nowhere/at all")
    _write(root / "take.mov", dice.randbytes(dice.randrange(4 * MIB)), dice)


def _files(root: Path, dice: random.Random, count: int, most: int) -> None:
    for number in range(count):
        folder = root / f"d{number % 5}" / f"e{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"f{number:04}", dice.randbytes(dice.randrange(most)), dice)


def _write(path: Path, content: bytes, dice: random.Random) -> None:
    path.write_bytes(content)
    path.chmod(dice.choice((0o644, 0o644, 0o600, 0o755, 0o444)))
    mtime = MTIME + dice.randrange(10**15)
    os.utime(path, ns=(mtime, mtime))


def _put_in_the_way(case: Case, dice: random.Random) -> bool:
    """Put other content where some of the files will go, older or newer, and a file beside."""
    case.target.mkdir(parents=True)
    _write(case.target / "theirs.txt", b"theirs", dice)
    files = sorted(path for path in case.source.rglob("*") if not path.is_dir())
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    taken = dice.sample(files, min(len(files), dice.randrange(1, 6)))
    for path in taken:
        there = case.target / path.relative_to(case.source)
        if len(os.fsencode(there.name)) > 200:
            continue  # A second name of it would have to be cut.
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(b"other " + dice.randbytes(dice.randrange(1, 3000)))
        mtime = path.stat().st_mtime_ns + dice.choice((-1, 1)) * 10**9
        os.utime(there, ns=(mtime, mtime))
    return any((case.target / path.relative_to(case.source)).exists() for path in taken)


def _foresee(case: Case) -> None:
    """Say what must be at the target after success."""
    case.expected = dict(case.there)
    for path, entry in case.before.items():
        place = path
        if path in case.there and entry.kind != "folder":
            policy = case.order["on_conflict"]
            older = case.there[path].mtime_ns < entry.mtime_ns
            if policy in ("fail", "skip") or (policy == "overwrite-older" and not older):
                continue
            if policy == "keep-both":
                place = _second(path, case.there)
        case.expected[place] = entry
        case.arrives[path] = place


def _second(path: bytes, there: Tree) -> bytes:
    names = (os.fsencode(name) for name in second_names(os.fsdecode(path)))
    return next(name for name in names if name not in there)


def contents(tree: Tree) -> Counter[str]:
    """The digests of a tree's files."""
    return Counter(entry.sha256 for entry in tree.values() if entry.kind == "file")


def _weighted(dice: random.Random, weights: dict[str, int]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]
