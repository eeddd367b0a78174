"""What the exactness tests share: what must arrive, what must be told, what must stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine import Endpoint, Report, Strategy
from tests.rig.hard_tree import TOP, Description, above_modes
from tests.rig.project import PROJECT
from tests.rig.transfers import through

#: Those that deliver a tree; an archive is another matter.
STRATEGIES = [Strategy.AUTO, Strategy.ZIP, Strategy.FILES]


def to_arrive(
    before: Description,
    *,
    special_bits: bool = False,
    xattrs: bool = False,
    hard_links: bool = False,
) -> Description:
    """What a transfer must make of a tree, asked for so much."""
    return {
        path: facts._replace(
            mode=facts.mode & (0o7777 if special_bits else 0o777),
            xattrs=facts.xattrs if xattrs else (),
            hard_links=facts.hard_links if hard_links else (),
        )
        for path, facts in before.items()
        if facts.carried
    }


def shown(path: bytes) -> str:
    """A path as a report shows it."""
    return engine.display_path(os.fsdecode(path))


def specials(tree: Description) -> set[bytes]:
    """What of a tree no transfer carries."""
    return {path for path, facts in tree.items() if not facts.carried}


def assert_only_specials_failed(report: Report, before: Description) -> None:
    """Fail unless each pipe, socket and device is named, and nothing else."""
    named = {(failure.path, failure.code) for failure in report.failures}
    assert named == {(shown(path), "KIND_NOT_CARRIED") for path in specials(before)}
    assert report.failures_total == len(named)
    assert report.status == ("partial" if named else "done")


def with_folders_above(paths: set[bytes]) -> set[bytes]:
    """These paths, the folders on the way to them, and the top, which stays whatever goes."""
    found = {TOP}
    for path in paths:
        parts = path.split(b"/")
        found |= {b"/".join(parts[: end + 1]) for end in range(len(parts))}
    return found


def ends(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Endpoint]:
    """Source and target of a transfer from a to b, on the way's two sides."""
    if way == "local":
        return {}
    server = through(request.getfixturevalue("sshd"))
    from_ssh, to_ssh = (server if side == "ssh" else None for side in way.split("-"))
    return {
        "source": Endpoint(str(tmp_path), "a", from_ssh),
        "target": Endpoint(str(tmp_path), "b", to_ssh),
    }


#: One transfer from one path to another, its options told in JSON; answered in JSON.
RUN = """
import json, sys, engine
source, target = (engine.Endpoint("/", path.lstrip("/")) for path in sys.argv[1:3])
told = json.loads(sys.argv[3])
kinds = {"mode": engine.Mode, "strategy": engine.Strategy}
options = {name: kinds.get(name, bool)(value) for name, value in told.items()}
report = engine.run(engine.Request(source, target, "ordinary", **options))
print(json.dumps([report.status, [[f.path, f.code, f.message] for f in report.failures]]))
"""


def run_as_ordinary_user(
    tmp_path: Path, **options: str | bool
) -> tuple[str, dict[str, tuple[str, str]]]:
    """Transfer a to b without root's rights; the status, and code and message by path."""
    # Without any capability root is an ordinary user, except that it owns what is there.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if above_modes(tmp_path) else []
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(
        [*plain, sys.executable, "-c", RUN, *places, json.dumps(options)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    status, failures = json.loads(done.stdout)
    return status, {path: (code, message) for path, code, message in failures}
