"""The late clean-up after a cancelled job's end: whoever dies meanwhile, another one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now

import engine
from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.attempts import MAX_LOSSES
from jobs.queueing.clearing import clearing_renew, clearing_take, clearing_waits
from jobs.queueing.notify import notify_again
from jobs.running import execution, shutdown
from jobs.services import job_create
from jobs.states import Status
from jobs.tasks import clear_one, run_job
from portals.models import Portal
from tests.jobs.helpers import (
    MEGABYTE,
    SHORT,
    build_many,
    ours,
    wait_for,
    wait_for_bytes,
)
from tests.jobs.test_execution import stage_half
from tests.rig.events import codes

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., subprocess.Popen[bytes]]
JobIn = Callable[..., Job]
DYING = ["--worker-class", "tests.jobs.dying_worker.DyingWorker"]


@pytest.fixture
def cancelled(job_in: JobIn, order: dict[str, Any], srvtrf: Portal) -> Job:
    """A job that was cancelled between two attempts; attempt 1 has left its data."""
    fields = {"attempt": 1, "cancel_requested_at": Now(), **order}
    job = job_in(Status.QUEUED, **fields)
    folder = Path(srvtrf.root_path) / "in"
    folder.mkdir()
    folder /= "day1"
    folder.mkdir()
    stage_half(folder, job)
    return job


@pytest.fixture
def lost(cancelled: Job) -> Job:
    """The same after its end; the worker that cleared away was lost."""
    past = Now() - timedelta(seconds=1)
    Job.objects.update(status=Status.CANCELLED, waits_for="", clearing_until=past)
    cancelled.refresh_from_db()
    return cancelled


@pytest.fixture
def dying(worker: StartWorker, tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a worker that dies at a moment of its late clean-up."""

    def start(moment: str, who: str) -> subprocess.Popen[bytes]:
        env = {"KETTER_TEST_DIES": moment, "KETTER_TEST_WHO": who}
        return worker(*DYING, **SHORT, **env, KETTER_TEST_DIED=tmp_path / "died")

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "who"),
    [
        ("ended", "both"),
        ("removing", "both"),
        ("waiting", "both"),
        ("removed", "both"),
        ("recorded", "both"),
        ("removing", "horse"),
    ],
)
def test_what_a_killed_worker_has_not_cleared_away_the_next_one_does(
    dying: Callable[..., subprocess.Popen[bytes]],
    worker: StartWorker,
    cancelled: Job,
    srvtrf: Portal,
    moment: str,
    who: str,
) -> None:
    """The folder stayed at the target for ever."""
    first = dying(moment, who)
    notify_again([cancelled.pk])
    if who == "both":
        assert first.wait(30) == -signal.SIGKILL
        worker(**SHORT)
    wait_for(lambda: codes(cancelled)[-1:] == ["STAGING_CLEARED"])
    cancelled.refresh_from_db()
    assert codes(cancelled).count("STAGING_LEFT") == codes(cancelled).count("STAGING_CLEARED") == 1
    assert (cancelled.status, cancelled.clearing_until) == (Status.CANCELLED, None)
    assert ours(Path(srvtrf.root_path)) == []


@pytest.mark.slow
def test_a_busy_worker_clears_away_what_a_lost_one_has_left(
    worker: StartWorker, lost: Job, srvtrf: Portal, lab: Portal, far: Portal
) -> None:
    Job.objects.filter(pk=lost.pk).update(clearing_until=Now() + timedelta(hours=1))
    build_many(Path(lab.root_path) / "more", 30 * MEGABYTE)
    worker(**SHORT)
    places = {"source_portal": lab, "source_path": "more", "target_portal": far}
    busy = job_create(by=lost.requested_by, target_path="in", **places)
    wait_for_bytes(busy)
    Job.objects.filter(pk=lost.pk).update(clearing_until=Now())
    wait_for(lambda: codes(lost)[-1:] == ["STAGING_CLEARED"], 10)
    busy.refresh_from_db()
    assert busy.status == Status.RUNNING
    assert ours(Path(srvtrf.root_path)) == []


@pytest.mark.slow
def test_an_idle_worker_that_shuts_down_leaves_the_clean_up_to_the_next_one(
    dying: Callable[..., subprocess.Popen[bytes]], worker: StartWorker, lost: Job, srvtrf: Portal
) -> None:
    first = dying("never", "horse")
    wait_for(lambda: Job.objects.get(pk=lost.pk).clearings)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(20) == 0
    worker(**SHORT)
    wait_for(lambda: codes(lost)[-1:] == ["STAGING_CLEARED"])
    assert ours(Path(srvtrf.root_path)) == []


def test_the_end_of_a_job_whose_data_stays_says_who_clears_away(
    cancelled: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Job] = []

    def hangs(*_args: object, hasty: bool, **_more: object) -> None:
        seen.append(Job.objects.get(pk=cancelled.pk))
        raise engine.Stalled("it hangs")

    monkeypatch.setattr(engine, "discard", hangs)
    monkeypatch.setattr(execution, "CLEARING_WAITS", ())
    run_job(str(cancelled.pk))
    before, late = seen
    assert (before.status, before.clearing_until) == (Status.RUNNING, None)
    assert late.status == Status.CANCELLED
    assert late.clearing_until
    cancelled.refresh_from_db()
    assert cancelled.clearing_until is None  # A host that hangs is left alone after that.
    assert codes(cancelled) == ["STARTED", "STAGING_LEFT"]


def test_a_clean_up_that_another_worker_has_taken_up_is_not_renewed_nor_ended_by_the_first(
    lost: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert clearing_waits()
    taken = clearing_take()
    assert taken
    assert not clearing_waits()
    assert clearing_take() is None
    clearing_renew(taken)
    with pytest.raises(engine.Replaced):
        clearing_renew(lost)
    monkeypatch.setattr(engine, "discard", lambda *_args, **_more: None)
    execution.clear_after_cancel(lost)
    assert "may still be at the target" in caplog.text
    assert codes(lost) == []
    execution.clear_after_cancel(taken)
    assert codes(lost) == ["STAGING_CLEARED"]


def test_a_clean_up_that_kills_its_workers_is_given_up_and_the_log_says_so(
    lost: Job, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, MAX_LOSSES + 1):
        taken = clearing_take()
        assert taken
        assert taken.clearings == number
        Job.objects.update(clearing_until=Now() - timedelta(seconds=1))
    assert clearing_take() is None
    assert not clearing_waits()
    assert f"{MAX_LOSSES} workers were lost" in caplog.text
    assert "remove it by hand" in caplog.text


def test_a_clean_up_on_another_machine_is_left_to_the_workers_there(
    lost: Job, srvtrf: Portal, settings: Any
) -> None:
    Portal.objects.filter(pk=srvtrf.pk).update(machine="elsewhere")
    assert not clearing_waits()
    assert clearing_take() is None
    settings.KETTER_MACHINE = "elsewhere"
    assert clearing_waits()


def test_a_worker_that_shuts_down_hands_its_clean_up_back(
    lost: Job, srvtrf: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = clearing_take()
    assert taken
    monkeypatch.setattr(shutdown, "_requested", True)
    execution.clear_after_cancel(taken)
    assert codes(lost) == []
    assert ours(Path(srvtrf.root_path))
    assert clearing_waits()
    monkeypatch.setattr(shutdown, "_requested", False)
    clear_one(worker="next")
    assert codes(lost) == ["STAGING_CLEARED"]
    assert ours(Path(srvtrf.root_path)) == []


def test_a_work_horse_that_is_known_to_be_dead_need_not_be_waited_for(lost: Job) -> None:
    soon = Now() + timedelta(hours=1)
    Job.objects.update(worker="lab.77", clearing_until=soon)
    assert not clearing_waits()
    reaper.give_back(worker="lab.77", reason="killed")
    assert clearing_waits()
