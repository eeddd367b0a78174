"""Progress is cheap: what a job costs the database grows with seconds and parcels, not files."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

import engine
from engine.parcels import builder
from jobs.models import Job, JobEvent, JobParcel
from jobs.running.observer import JobObserver
from jobs.services import job_create
from jobs.states import Status
from jobs.tasks import run_job
from portals.models import Portal
from tests.factories import PortalFactory

pytestmark = pytest.mark.django_db(transaction=True)

MEGABYTE = 1_000_000
#: Updates that do not come with the clock: the claim, some phases, the last counters, the end.
STEPS = 6


class Statements:
    """Counts what is written, as a wrapper around every statement of a connection."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.updates: list[float] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        words = sql.split(None, 3)
        if words[0] in ("INSERT", "UPDATE", "DELETE"):
            self.count[f"{words[0]} {words[2 if words[0] != 'UPDATE' else 1]}"] += 1
            if words[:2] == ["UPDATE", '"jobs"']:
                self.updates.append(time.monotonic())
        return execute(sql, params, many, context)

    @property
    def total(self) -> int:
        """How many statements that was."""
        return self.count.total()


Ran = tuple[Job, Statements, float]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder that is sent, empty at first."""
    folder = tmp_path / "lab" / "day1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def run(source: Path, oscar: User, tmp_path: Path) -> Callable[..., Ran]:
    """Run a job in this process: how it ended, what it wrote, and how long it took."""
    (tmp_path / "srvtrf").mkdir()
    portals: list[Portal] = [
        PortalFactory.create(name=name, root_path=str(tmp_path / name))
        for name in ("lab", "srvtrf")
    ]

    def run(**order: Any) -> Ran:
        job = job_create(
            by=oscar,
            source_portal=portals[0],
            source_path="day1",
            target_portal=portals[1],
            target_path="in",
            **order,
        )
        statements, began = Statements(), time.monotonic()
        with connection.execute_wrapper(statements):
            run_job(str(job.pk))
        return Job.objects.get(pk=job.pk), statements, time.monotonic() - began

    return run


def fill(folder: Path, files: int, size: int = 0) -> None:
    """Write many files, some hundred to a folder."""
    for number in range(files):
        if number % 500 == 0:
            below = folder / f"d{number // 500:04}"
            below.mkdir()
        with open(below / f"f{number:06}", "wb") as file:
            file.write(os.urandom(size))


def rows(job: Job) -> int:
    """How many rows a job has beside its own."""
    events = JobEvent.objects.filter(job=job).count()
    return events + JobParcel.objects.filter(job=job).count()


@pytest.mark.slow
def test_a_slow_copy_saves_its_progress_about_once_a_second(
    source: Path, run: Callable[..., Ran]
) -> None:
    (source / "large.bin").write_bytes(os.urandom(6 * MEGABYTE))
    fill(source, 500, 1000)
    job, statements, seconds = run(bandwidth_limit=MEGABYTE)
    assert job.status == Status.DONE, job.error_message
    assert seconds > 4
    assert len(statements.updates) <= seconds + STEPS, statements.count
    # In any three seconds after the first moments, as many as there are seconds, and one.
    steady = statements.updates[2:-2]
    assert all(later - earlier > 2 for earlier, later in zip(steady, steady[3:], strict=False))
    assert statements.total <= 3 * seconds + 20, statements.count


def test_many_parcels_cost_one_database_record_each_and_few_statements(
    source: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "PARCEL_ENTRIES", 20)
    fill(source, 2000)
    job, statements, seconds = run(mode="move")
    assert job.status == Status.DONE, job.error_message
    parcels = JobParcel.objects.filter(job=job).count()
    assert 90 <= parcels <= 110
    assert rows(job) - parcels <= 10
    assert statements.total <= 4 * seconds + 20, statements.count


def test_thousands_of_failures_cost_a_job_one_event(source: Path, run: Callable[..., Ran]) -> None:
    fill(source, 20, 10)
    for number in range(3000):
        os.mkfifo(source / f"pipe{number:04}")  # No transfer carries those.
    job, statements, seconds = run()
    assert (job.status, job.files_failed) == (Status.PARTIAL, 3000), job.error_message
    assert JobEvent.objects.filter(job=job).count() <= 6
    last = job.events.order_by("-seq")[0]
    assert (last.data["failures_total"], len(last.data["failures"])) == (3000, 100)
    assert statements.total <= 3 * seconds + 20, statements.count


class _Vanishing:
    """Removes a folder as soon as the transfer begins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, observer: JobObserver, phase: engine.Phase) -> None:
        if phase is engine.Phase.TRANSFER:
            shutil.rmtree(self._folder)


def test_thousands_of_files_that_vanish_cost_a_job_few_events(
    source: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "gone").mkdir()
    for number in range(4000):
        (source / "gone" / f"f{number}").touch()
    (source / "stays").write_bytes(b"content")
    vanish, told = _Vanishing(source / "gone"), JobObserver.phase

    def phase(self: JobObserver, phase: engine.Phase) -> None:
        told(self, phase)
        vanish(self, phase)

    monkeypatch.setattr(JobObserver, "phase", phase)
    job, statements, seconds = run()
    assert (job.status, job.files_failed) == (Status.PARTIAL, 4001), job.error_message
    assert JobEvent.objects.filter(job=job).count() <= 12
    assert statements.total <= 3 * seconds + 20, statements.count


@pytest.mark.slow
def test_a_hundred_thousand_files_cost_under_five_hundred_database_records(
    source: Path, run: Callable[..., Ran]
) -> None:
    fill(source, 100_000)
    job, statements, seconds = run()
    assert (job.status, job.files_done) == (Status.DONE, 100_000), job.error_message
    assert rows(job) < 500
    # By the same measure a million files stay below five hundred, too.
    assert 10 * rows(job) < 500, f"{rows(job)} rows for 100,000 files"
    assert len(statements.updates) <= seconds + STEPS, statements.count
