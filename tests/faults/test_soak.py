"""The soak in small, and its oracle: that it sees what must not be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db import transaction

from jobs.events import Note, append
from jobs.models import Job
from jobs.states import Status
from tests.factories import JobFactory
from tests.faults import soak_jobs, soak_oracle
from tests.faults.soak import KINDS, Soak, markdown
from tests.faults.soak_jobs import Case
from tests.faults.soak_world import Slot
from tests.rig.lanes import nightly
from tests.rig.project import PROJECT

#: The longer soak is for the nightly lane.
SEED, MINUTES = 7, 0.5


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [MINUTES, nightly(30.0)])
def test_the_soak_finds_no_violation_in_minutes_of_faults(minutes: float, tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    command = [sys.executable, "-m", "tests.faults.soak", "--json", str(report)]
    command += ["--minutes", str(minutes), "--seed", str(SEED)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    tally = json.loads(report.read_text())
    assert ended.returncode == 0, ended.stderr[-8000:]
    assert {kind: tally[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert tally["jobs"] > 5 * minutes
    assert tally["faults_total"] > 10 * minutes


def test_the_soak_report_counts_a_worker_that_ended_by_itself() -> None:
    soak = Soak(SimpleNamespace(died=[("exit status 1", "Traceback")]), SEED, MINUTES)
    assert "| died | 0 |" in markdown(soak.tally())
    soak.name_the_dead()
    tally = soak.tally()
    assert "| died | 1 |" in markdown(tally)
    assert [(found["kind"], found["trail"]) for found in tally["violations"]] == [
        ("died", "Traceback")
    ]


@pytest.mark.parametrize(
    ("expected", "said", "redis_since", "by_itself"),
    [
        (False, "Listening on default...", 1.0, True),
        (False, "Listening on default...", 3.0, True),
        (False, "ImportError", 1.0, True),
        (False, "Error 111 connecting to valkey.sock", 3.0, False),
        (True, "Listening on default...", 1.0, False),
    ],
)
def test_the_soak_excuses_only_workers_that_had_to_end_or_lacked_redis(
    tmp_path: Path, expected: bool, said: str, redis_since: float, by_itself: bool
) -> None:
    slot = Slot(0, tmp_path / "log", {})
    slot.log.write_text(said)
    slot.started, slot.expected = 2.0, expected
    assert slot.died_by_itself(redis_since) is by_itself


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A moved tree, as it is after success."""
    roots = {"lab": tmp_path / "lab"}
    number = next(n for n in range(1, 500) if _is_plain_move(soak_jobs.make(1, n, roots)))
    shutil.rmtree(tmp_path / "lab")
    case = soak_jobs.make(1, number, roots)
    case.target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(case.source, case.target, symlinks=True)
    shutil.rmtree(case.source)
    case.source.mkdir()
    return case


def _is_plain_move(case: Case) -> bool:
    return case.kind == "mixed" and case.is_move and not (case.there or case.is_archive)


@pytest.fixture
def ended(db: None) -> Callable[..., Job]:
    """Make a job that has ended, with its trail."""

    def make(status: Status = Status.DONE, *codes: str) -> Job:
        job = JobFactory.create(status=status)
        with transaction.atomic():
            for code in ("CREATED", "STARTED", *(codes or (status.upper(),))):
                append(job, Note(code, "So it was."))
        return job

    return make


def kinds(case: Case, job: Job) -> set[str]:
    """What the oracle says is wrong."""
    return {found.kind for found in soak_oracle.judge(case, [job])}


def any_file(root: Path) -> Path:
    """Some file with content."""
    return next(path for path in sorted(root.rglob("f0*")) if path.stat().st_size)


def test_the_soak_oracle_accepts_a_move_that_arrived_whole(
    case: Case, ended: Callable[..., Job]
) -> None:
    assert soak_oracle.judge(case, [ended()]) == []


def lose_a_file(case: Case) -> None:
    any_file(case.target).unlink()


def leave_a_staging_folder(case: Case) -> None:
    (case.target / ".ketter-0123.part").mkdir()


def leave_the_source(case: Case) -> None:
    shutil.rmtree(case.source)
    shutil.copytree(case.target, case.source, symlinks=True)


@pytest.mark.parametrize(
    ("deed", "status", "kind"),
    [
        (lose_a_file, Status.DONE, "lost"),
        (lose_a_file, Status.CANCELLED, "lost"),
        (leave_a_staging_folder, Status.DONE, "debris"),
        (leave_the_source, Status.DONE, "unexpected"),
    ],
)
def test_the_soak_oracle_finds_a_lost_file_and_what_a_move_should_have_removed(
    deed: Callable[[Case], None],
    status: Status,
    kind: str,
    case: Case,
    ended: Callable[..., Job],
) -> None:
    deed(case)
    assert kind in kinds(case, ended(status))


def test_the_soak_oracle_finds_a_changed_byte(case: Case, ended: Callable[..., Job]) -> None:
    file = any_file(case.target)
    info = file.stat()
    content = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    file.chmod(info.st_mode)
    os.utime(file, ns=(info.st_mtime_ns, info.st_mtime_ns))
    assert {"corrupt", "lost"} == kinds(case, ended())


@pytest.mark.parametrize(
    ("mode", "what", "seen"),
    [
        ("copy", "mode", {"corrupt"}),
        ("copy", "time", {"corrupt"}),
        ("move", "mode", {"corrupt"}),
        ("move", "time", set()),  # A killed move may change it while it removes the source.
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_the_soak_oracle_finds_a_changed_mode_or_time_of_a_folder(
    side: str, mode: str, what: str, seen: set[str], case: Case, ended: Callable[..., Job]
) -> None:
    case.order["mode"] = mode
    if mode == "copy":
        case.source.rmdir()
        shutil.copytree(case.target, case.source, symlinks=True)
    elif side == "source":  # What a move that was cancelled has left there.
        (case.source / "empty").mkdir()
    folder = getattr(case, side) / "empty"
    status = Status.CANCELLED if mode == "move" and side == "source" else Status.DONE
    folder.chmod(0o711 if what == "mode" else case.before[b"empty"].mode)
    times = 0 if what == "time" else case.before[b"empty"].mtime_ns
    os.utime(folder, ns=(times, times))
    assert kinds(case, ended(status)) == seen


@pytest.mark.parametrize(
    ("status", "codes", "kind"),
    [
        (Status.DONE, ("DONE", "DONE"), "trail"),
        (Status.DONE, ("DONE", "WORKER_LOST"), "trail"),
        (Status.CANCELLED, ("DONE",), "trail"),
        (Status.FAILED, ("TARGET_EXISTS",), "unexpected"),
        (Status.PARTIAL, ("PARTIAL",), "unexpected"),
        (Status.QUEUED, ("RETRIED",), "lost"),
    ],
)
def test_the_soak_oracle_finds_an_end_that_is_missing_doubled_or_unexpected(
    status: Status, codes: tuple[str, ...], kind: str, case: Case, ended: Callable[..., Job]
) -> None:
    assert kind in kinds(case, ended(status, *codes))
