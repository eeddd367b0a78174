"""`run_job` with the real engine in this process: how each end is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils import timezone

import engine
from engine.types import ParcelKind, ParcelReport, ParcelState, Phase, Progress
from jobs import bridge
from jobs import observer as observing
from jobs.bridge import request_for
from jobs.errors import Orphaned
from jobs.models import Job, JobEvent
from jobs.observer import JobObserver
from jobs.services import job_cancel, job_create
from jobs.states import Status
from jobs.tasks import run_job
from portals.models import Portal


def write_tree(root: Path) -> dict[str, bytes]:
    """A small tree with what is easily forgotten, as relative path -> content."""
    content = {"a.txt": b"alpha", "sub/.hidden": b"h" * 5000, "sub/deep/empty": b"", "ünï": b"x"}
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return content


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder, as relative path -> content."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def launched(oscar: User, order: dict[str, Any], lab: Portal) -> Callable[..., Job]:
    """Launch a job over a small tree and run it here; returns it as it ended."""
    write_tree(Path(lab.root_path) / "day1")

    def run(**changes: Any) -> Job:
        job = job_create(by=oscar, **{**order, **changes})
        run_job(str(job.pk))
        return Job.objects.get(pk=job.pk)

    return run


def last_event(job: Job) -> JobEvent:
    """How a job's trail ends."""
    return job.events.order_by("-seq")[0]


def codes(job: Job) -> list[str]:
    """The codes of a job's events, in order."""
    return list(job.events.order_by("seq").values_list("code", flat=True))


def test_it_ends_a_copy_done_with_what_was_proven(
    launched: Callable[..., Job], lab: Portal, srvtrf: Portal
) -> None:
    job = launched()
    sent, arrived = Path(lab.root_path) / "day1", Path(srvtrf.root_path) / "in/day1"
    assert tree(arrived) == tree(sent) != {}
    assert (job.status, job.error_code, job.lease_until) == (Status.DONE, "", None)
    assert (job.files_done, job.bytes_done, job.percent) == (4, 5006, 100)
    assert codes(job)[:2] == ["CREATED", "STARTED"]
    end = last_event(job)
    assert end.code == "DONE"
    assert end.data["files"] == 4
    assert end.data["bytes"] == 5006
    assert end.data["verify"] == "stream"
    assert end.data["seconds"] > 0
    assert end.data["rate"] > 0
    assert job.plan is not None
    parcel = job.parcels.get()
    assert (parcel.state, parcel.attempt) == ("published", 1)
    assert parcel.manifest


def test_it_ends_a_move_done_with_nothing_left_at_the_source(
    launched: Callable[..., Job], lab: Portal, srvtrf: Portal
) -> None:
    before = tree(Path(lab.root_path) / "day1")
    job = launched(mode="move")
    assert job.status == Status.DONE
    assert tree(Path(srvtrf.root_path) / "in/day1") == before
    assert tree(Path(lab.root_path)) == {}
    end = last_event(job)
    assert (end.data["verify"], end.data["files_removed"]) == ("readback", 4)


def test_it_fails_with_a_sentence_when_the_source_is_missing(
    launched: Callable[..., Job], srvtrf: Portal
) -> None:
    job = launched(source_path="nowhere")
    assert (job.status, job.error_code) == (Status.FAILED, "SOURCE_MISSING")
    assert "nowhere" in job.error_message
    end = last_event(job)
    assert (end.code, end.level, end.message) == ("SOURCE_MISSING", "error", job.error_message)
    assert tree(Path(srvtrf.root_path)) == {}


def test_it_fails_when_a_symlink_leads_out_of_the_root(
    launched: Callable[..., Job], lab: Portal, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not yours")
    (Path(lab.root_path) / "way-out").symlink_to(outside)
    job = launched(source_path="way-out")
    assert (job.status, job.error_code) == (Status.FAILED, "PATH_OUTSIDE_ROOT")


def test_it_fails_when_the_target_holds_something_else(
    launched: Callable[..., Job], srvtrf: Portal
) -> None:
    there = Path(srvtrf.root_path) / "in/day1"
    there.mkdir(parents=True)
    (there / "a.txt").write_text("something else")
    job = launched()
    assert job.status in {Status.FAILED, Status.PARTIAL}
    assert (there / "a.txt").read_text() == "something else"
    assert "TARGET_EXISTS" in str(last_event(job).data) + job.error_code


def test_it_waits_for_a_person_when_a_portal_was_disabled_meanwhile(
    oscar: User, order: dict[str, Any], lab: Portal
) -> None:
    job = job_create(by=oscar, **order)
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "PORTAL_DISABLED")
    assert "Enable the portal" in job.error_message


@pytest.mark.parametrize(
    ("portal", "status", "code"),
    [
        (
            {"host": "127.0.0.1", "port": 1, "host_key": "ssh-ed25519 AAAA"},
            Status.RETRY_WAIT,
            "CONNECTION_REFUSED",
        ),
        (
            {"host": "no-such-host.invalid", "host_key": "ssh-ed25519 AAAA"},
            Status.RETRY_WAIT,
            "HOST_UNREACHABLE",
        ),
        ({"host": "127.0.0.1"}, Status.NEEDS_ATTENTION, "HOST_KEY_UNKNOWN"),
    ],
)
def test_it_waits_for_the_host_or_a_person_when_the_host_cannot_be_used(
    portal: dict[str, Any],
    status: Status,
    code: str,
    launched: Callable[..., Job],
    srvtrf: Portal,
) -> None:
    Portal.objects.filter(pk=srvtrf.pk).update(kind="ssh", username="nobody", **portal)
    srvtrf.refresh_from_db()
    job = launched(target_portal=srvtrf)
    assert (job.status, job.error_code) == (status, code)
    assert last_event(job).message.startswith(job.error_message)
    assert (job.next_run_at is not None) == (status is Status.RETRY_WAIT)


def test_it_ends_partial_and_names_what_was_not_delivered(
    launched: Callable[..., Job], lab: Portal, srvtrf: Portal
) -> None:
    os.mkfifo(Path(lab.root_path) / "day1/pipe")
    job = launched()
    assert (job.status, job.error_code, job.files_failed) == (Status.PARTIAL, "PARTIAL", 1)
    assert job.percent < 100
    end = last_event(job)
    assert (end.level, end.data["failures_total"]) == ("warning", 1)
    assert end.data["failures"][0]["path"] == "pipe"
    assert len(tree(Path(srvtrf.root_path) / "in/day1")) == 4


def test_it_runs_once_what_is_delivered_twice(launched: Callable[..., Job]) -> None:
    job = launched()
    run_job(str(job.pk))
    assert codes(job).count("STARTED") == 1


def test_it_records_a_bug_as_internal_and_raises_it(
    launched: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_job: Job) -> engine.Request:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(bridge, "request_for", broken)
    with pytest.raises(ZeroDivisionError):
        launched()
    job = Job.objects.get()
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "INTERNAL")
    assert "please report them" in job.error_message


class Meddler(JobObserver):
    """An observer during whose transfer somebody else meddles with the row."""

    def __init__(self, job: Job, meddle: Callable[[Job], object]) -> None:
        super().__init__(job)
        self._meddle = meddle

    def phase(self, phase: Phase) -> None:
        super().phase(phase)
        if phase is Phase.SCAN:
            self._meddle(Job.objects.get(pk=self._job.pk))
            self._looked = self._asked = float("-inf")
            self.checkpoint()


@pytest.fixture
def meddled(
    launched: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Job], object]], Job]:
    """Run a job during which something happens to its row."""

    def run(meddle: Callable[[Job], object]) -> Job:
        monkeypatch.setattr(bridge, "JobObserver", lambda job: Meddler(job, meddle))
        return launched()

    return run


def test_it_stops_when_cancelled_and_leaves_nothing(
    meddled: Callable[..., Job], oscar: User, srvtrf: Portal
) -> None:
    job = meddled(lambda job: job_cancel(job, by=oscar))
    assert job.status == Status.CANCELLED
    assert codes(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]
    assert tree(Path(srvtrf.root_path)) == {}


@pytest.mark.parametrize("file", [False, True])
def test_a_job_cancelled_after_its_worker_died_leaves_nothing(
    launched: Callable[..., Job],
    job_in: Callable[..., Job],
    lab: Portal,
    srvtrf: Portal,
    file: bool,
) -> None:
    """Attempt 1 died with something staged; the job is cancelled; attempt 2 clears away."""
    root = Path(srvtrf.root_path)
    (root / "out").mkdir()
    (root / "out" / "older").write_bytes(b"stays")
    job = job_in(
        Status.QUEUED,
        attempt=1,
        source_portal=lab,
        target_portal=srvtrf,
        target_path="out/name.mov" if file else "out",
        cancel_requested_at=timezone.now(),
    )
    staged = root / "out" / f".ketter-{job.id.hex}.part" / "a1"
    staged.mkdir(parents=True)
    (staged / "half.mov").write_bytes(b"ha")

    run_job(str(job.pk))

    job.refresh_from_db()
    assert (job.status, codes(job)[-1]) == (Status.CANCELLED, "CANCELLED")
    assert [path.name for path in root.rglob("*")] == ["out", "older"]


def test_it_stops_silently_when_replaced(meddled: Callable[..., Job]) -> None:
    job = meddled(lambda job: Job.objects.filter(pk=job.pk).update(attempt=2, worker="w2"))
    assert (job.status, job.attempt, job.worker) == (Status.RUNNING, 2, "w2")
    assert codes(job)[-1] == "STARTED"


def test_it_hands_the_job_back_when_its_parent_process_is_gone(
    meddled: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = meddled(lambda job: monkeypatch.setattr(os, "getppid", lambda: -1))
    assert job.status == Status.QUEUED
    assert codes(job)[-1] == "WORKER_LOST"


def test_it_asks_for_no_more_streams_than_the_portals_allow(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, streams=8, attempt=3)
    job.source_portal.max_streams = 2
    request = request_for(job)
    assert (request.streams, request.attempt, request.transfer_id) == (2, 3, job.pk.hex)


def test_it_writes_news_at_most_once_a_second(
    job_in: Callable[..., Job], django_assert_num_queries: Any
) -> None:
    observer = JobObserver(job_in(Status.RUNNING))
    observer.checkpoint()
    with django_assert_num_queries(0):
        for done in range(1000):
            observer.progress(Progress(files_total=1000, files_done=done))
            observer.parcel(ParcelReport(1, ParcelKind.ZIP, 1, 1, ParcelState.SENDING))
            observer.checkpoint()


def test_it_keeps_news_while_the_database_is_away_for_a_moment(
    job_in: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(Status.RUNNING)
    observer = JobObserver(job)
    with monkeypatch.context() as away:
        away.setattr(observing, "attempt_record", _away)
        away.setattr(connection, "close", lambda: None)
        observer.event("info", "FIRST", "While the database was away.", {})
        observer.progress(Progress(files_total=2, files_done=1))
        observer.save()
    observer.event("info", "SECOND", "It is back.", {})
    observer.save()
    job.refresh_from_db()
    assert codes(job) == ["FIRST", "SECOND"]
    assert job.files_done == 1


def test_it_stops_when_the_database_is_away_for_as_long_as_the_lease(
    job_in: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.KETTER_LEASE_SECONDS = 0
    observer = JobObserver(job_in(Status.RUNNING))
    monkeypatch.setattr(observing, "attempt_record", _away)
    monkeypatch.setattr(connection, "close", lambda: None)
    with pytest.raises(engine.Replaced):
        observer.checkpoint()


def test_it_names_a_hundred_failures_and_counts_the_rest(job_in: Callable[..., Job]) -> None:
    failures = tuple(engine.EntryFailure(f"f{n}", "X", "No.") for n in range(250))
    report = engine.Report(
        status="partial",
        mode=engine.Mode.COPY,
        verify=engine.Verify.STREAM,
        files=1,
        bytes=1,
        files_skipped=0,
        files_removed=0,
        files_resumed=0,
        bytes_resumed=0,
        streams=1,
        seconds=1.0,
        parcels=1,
        failures=failures,
        failures_total=5000,
    )
    job = job_in(Status.RUNNING)
    bridge.finish(job, bridge.end_of(report))
    data = job.events.get().data
    assert (len(data["failures"]), data["failures_total"], job.files_failed) == (100, 5000, 5000)
    assert job.status == Status.PARTIAL


def test_an_orphan_is_one_that_was_replaced() -> None:
    assert issubclass(Orphaned, engine.Replaced)


def _away(*_args: Any, **_kwargs: Any) -> None:
    raise OperationalError("the database is away")
