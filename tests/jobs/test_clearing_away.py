"""The time that a cancelled job and its worker spend at a host where its data cannot be removed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models.functions import Now

import engine
from jobs.models import Job
from jobs.running import execution
from jobs.running.observer import JobObserver
from jobs.running.outcome import End
from jobs.states import Status

pytestmark = pytest.mark.django_db(transaction=True)

JobIn = Callable[..., Job]


class Target:
    """A target where each try to remove the data fails after some seconds of a clock."""

    def __init__(self, error: engine.EngineError, seconds: float) -> None:
        self.now, self.tries = 1000.0, 0
        self._error, self._seconds = error, seconds

    def discard(self, *_args: Any, **_options: Any) -> None:
        self.tries += 1
        self.now += self._seconds
        raise self._error

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def target_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Target]:
    """Have each try end with an error after some seconds."""

    def make(error: engine.EngineError, seconds: float) -> Target:
        target = Target(error, seconds)
        clock = SimpleNamespace(monotonic=lambda: target.now, sleep=target.sleep)
        monkeypatch.setattr(execution, "time", clock)
        monkeypatch.setattr(engine, "discard", target.discard)
        return target

    return make


def cancelled() -> End:
    """The end of a cancelled job whose data may be at its target."""
    return End(Status.CANCELLED, "CANCELLED", "A user had cancelled this job.")


@pytest.fixture
def ended(job_in: JobIn) -> Job:
    """A cancelled job that has ended, while its worker goes on clearing away."""
    soon = Now() + timedelta(seconds=60)
    return job_in(Status.CANCELLED, attempt=1, cancel_requested_at=Now(), clearing_until=soon)


def test_a_host_that_hangs_keeps_the_worker_of_an_ended_job_for_one_patient_try(
    ended: Job, target_with: Callable[..., Target]
) -> None:
    """There were four, of a minute each; of an hour each, if the host says that it works."""
    target = target_with(engine.Stalled("no sign of work"), 60.0)
    execution.clear_after_cancel(ended)
    assert target.tries == 1


def test_a_silent_line_is_tried_again_within_a_minute(
    ended: Job, target_with: Callable[..., Target]
) -> None:
    target = target_with(engine.Stalled("silent"), 45.0)
    execution.clear_after_cancel(ended)
    assert target.tries == 2


@pytest.mark.parametrize(("error", "tries"), [(engine.Stalled, 1), (engine.ConnectionLost, 3)])
def test_a_person_who_cancels_waits_for_one_try_at_a_host_that_hangs(
    job_in: JobIn,
    target_with: Callable[..., Target],
    error: type[engine.EngineError],
    tries: int,
) -> None:
    job = job_in(Status.RUNNING)
    target = target_with(error("it hangs"), 0.3)
    execution._discard(job, end := cancelled(), JobObserver(job), since=1000.0)
    assert (target.tries, "it hangs" in end.data["left"]) == (tries, True)


@pytest.mark.parametrize(("ago", "tries"), [(1.0, 1), (2.5, 0)])
def test_a_person_who_cancels_waits_for_no_second_try_if_the_engines_own_took_long(
    job_in: JobIn, target_with: Callable[..., Target], ago: float, tries: int
) -> None:
    """Each took as long as a host that hangs is given: together eight seconds, not five."""
    job = job_in(Status.RUNNING)
    target = target_with(engine.Stalled("it hangs"), 3.0)
    observer = JobObserver(job)
    observer.event("warning", "STAGING_LEFT", "It could not: it hangs", {"reason": "it hangs"})
    execution._discard(job, end := cancelled(), observer, since=target.now - ago)
    assert (target.tries, end.data["left"].endswith("at the target: it hangs")) == (tries, True)


def test_a_job_that_is_pruned_while_its_data_is_removed_is_no_bug(
    ended: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "discard", lambda *_args, **_options: None)
    Job.objects.all().delete()
    with caplog.at_level(logging.WARNING):
        execution.clear_after_cancel(ended)
    assert "its data may still be at the target" in caplog.text
