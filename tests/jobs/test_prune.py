"""`manage.py prune`: removes old jobs whole, and keeps the others whole."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from jobs import retention
from jobs.events import lock
from jobs.models import Job, JobEvent, JobParcel
from jobs.retention import Pruned, jobs_prune
from jobs.states import FINAL, LIVE, Status
from tests.factories import JobFactory, PortalFactory, UserFactory
from tests.rig.jobs_events import event_add
from tests.rig.jobs_threads import in_threads

DAYS_90 = timedelta(days=90)

EndedJob = Callable[..., Job]


@pytest.fixture
def ended(db: None) -> EndedJob:
    """Make an ended job, 91 days old by the database's clock, with two events and a parcel."""
    portals = [PortalFactory.create(), PortalFactory.create()]
    user = UserFactory.create()

    def make(status: Status = Status.DONE, days: float = 91, **fields: object) -> Job:
        job = JobFactory.create(
            source_portal=portals[0],
            target_portal=portals[1],
            requested_by=user,
            status=status,
            finished_at=Now() - timedelta(days=days),
            **fields,
        )
        event_add(job, code="TEST", message="One.")
        event_add(job, code="TEST", message="Two.")
        JobParcel.objects.create(
            job=job, number=1, kind="zip", files=1, bytes=1, state="published", attempt=1,
            manifest=b"manifest",
        )  # fmt: skip
        return job

    return make


@pytest.fixture
def chain(ended: EndedJob) -> Callable[..., list[Job]]:
    """Make jobs of which each was relaunched from the one before."""

    def make(*days: float) -> list[Job]:
        jobs: list[Job] = []
        for age in days:
            jobs.append(ended(days=age, relaunched_from=jobs[-1] if jobs else None))
        return jobs

    return make


def prune_elsewhere(times: int = 1) -> list[Pruned]:
    """Prune on other connections, all at once, while what this one has locked stays locked."""
    return in_threads(times, lambda: jobs_prune(older_than=DAYS_90))


def counts(pruned: Pruned) -> tuple[int, int, int, int]:
    """Jobs, events, parcels, left alone."""
    return pruned.jobs, pruned.events, pruned.parcels, pruned.left


def rows() -> tuple[int, int, int]:
    """How many jobs, events and parcels there are."""
    return Job.objects.count(), JobEvent.objects.count(), JobParcel.objects.count()


def kept() -> set[UUID]:
    """The jobs on record."""
    return set(Job.objects.values_list("pk", flat=True))


def prune(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("prune", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("status", sorted(FINAL))
def test_prune_removes_an_old_ended_job_with_its_events_and_parcels(
    status: Status, ended: EndedJob
) -> None:
    ended(status)
    assert counts(jobs_prune(older_than=DAYS_90)) == (1, 2, 1, 0)
    assert rows() == (0, 0, 0)


@pytest.mark.parametrize("status", sorted(LIVE))
def test_prune_never_removes_a_live_job(status: Status, job_in: Callable[..., Job]) -> None:
    ages_ago = Now() - timedelta(days=9999)
    times = ("created_at", "queued_at", "next_run_at", "finished_at")
    job = job_in(status, **dict.fromkeys(times, ages_ago))
    event_add(job, code="TEST", message="One.")
    for dry_run in (True, False):
        assert counts(jobs_prune(older_than=DAYS_90, dry_run=dry_run)) == (0, 0, 0, 0)
    assert rows() == (1, 1, 0)


def test_prune_keeps_young_jobs_and_ended_jobs_with_no_end_on_record(
    ended: EndedJob, job_in: Callable[..., Job]
) -> None:
    young, unknown = ended(days=89.99), job_in(Status.DONE)
    old = ended(days=90.01)
    assert jobs_prune(older_than=DAYS_90).jobs == 1
    assert kept() == {young.pk, unknown.pk}
    assert not JobEvent.objects.filter(job_id=old.pk).exists()
    assert young.events.count() == 2


def test_prune_measures_the_age_of_jobs_by_the_clock_of_the_database(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: None)
    before = jobs_prune(older_than=DAYS_90).before
    with connection.cursor() as cursor:
        cursor.execute("SELECT STATEMENT_TIMESTAMP() - %s", [before])
        (age,) = cursor.fetchone()
    assert DAYS_90 <= age < DAYS_90 + timedelta(minutes=1)


# --- Chains of relaunches ----------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 500])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_prune_removes_a_chain_of_relaunches_when_all_its_jobs_are_old(
    length: int, batch: int, chain: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", batch)
    chain(*range(91 + length, 91, -1))
    assert counts(jobs_prune(older_than=DAYS_90)) == (length, 2 * length, length, 0)
    assert rows() == (0, 0, 0)


@pytest.mark.parametrize("batch", [1, 500])
def test_prune_keeps_a_chain_of_relaunches_while_its_latest_job_is_young(
    batch: int,
    chain: Callable[..., list[Job]],
    ended: EndedJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH", batch)
    jobs = chain(400, 300, 200, 1)
    beside = ended(relaunched_from=jobs[1])
    forecast = jobs_prune(older_than=DAYS_90, dry_run=True)
    assert counts(jobs_prune(older_than=DAYS_90)) == counts(forecast) == (1, 2, 1, 0)
    assert kept() == {job.pk for job in jobs}
    assert beside.pk not in kept()
    assert all(job.events.count() == 2 and job.parcels.count() == 1 for job in jobs)


@pytest.mark.parametrize("status", sorted(Status))
def test_prune_keeps_a_job_whose_relaunch_has_no_end_on_record(
    status: Status, ended: EndedJob, job_in: Callable[..., Job]
) -> None:
    old = ended()
    again = job_in(status, relaunched_from=old, next_run_at=Now())
    for dry_run in (True, False):
        assert counts(jobs_prune(older_than=DAYS_90, dry_run=dry_run)) == (0, 0, 0, 0)
    assert kept() == {old.pk, again.pk}


def test_prune_removes_a_job_once_all_its_relaunches_are_removed(
    ended: EndedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    old = ended(days=300)
    for days in (120, 110, 100):
        ended(days=days, relaunched_from=old)
    assert jobs_prune(older_than=DAYS_90).jobs == 4
    assert rows() == (0, 0, 0)


# --- Batches -----------------------------------------------------------------


@pytest.mark.parametrize("jobs", [0, 2, 3, 4, 6, 7])
def test_prune_removes_all_old_jobs_however_many_batches_it_takes(
    jobs: int, ended: EndedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for number in range(jobs):
        ended(days=100 + number)
    young = ended(days=1)
    assert counts(jobs_prune(older_than=DAYS_90)) == (jobs, 2 * jobs, jobs, 0)
    assert kept() == {young.pk}


@pytest.mark.django_db(transaction=True)
def test_an_interrupted_prune_has_removed_the_oldest_jobs_and_keeps_the_others_whole(
    ended: EndedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    jobs = [ended(days=days) for days in (120, 150, 110, 140, 130)]
    remove, batches = retention._remove, []

    def break_at_the_second(*arguments: object) -> object:
        batches.append(arguments)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return remove(*arguments)

    monkeypatch.setattr(retention, "_remove", break_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        jobs_prune(older_than=DAYS_90)
    assert kept() == {jobs[0].pk, jobs[2].pk, jobs[4].pk}
    assert rows() == (3, 6, 3)


@pytest.mark.django_db(transaction=True)
def test_prune_takes_as_many_queries_for_1_job_as_for_40(ended: EndedJob) -> None:
    def queries(count: int) -> int:
        for _ in range(count):
            ended()
        with CaptureQueriesContext(connection) as asked:
            assert jobs_prune(older_than=DAYS_90).jobs == count
        return len(asked)

    assert queries(1) == queries(40)


# --- Others at work ----------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_prune_skips_and_logs_a_job_that_another_transaction_locks(
    ended: EndedJob, caplog: pytest.LogCaptureFixture
) -> None:
    busy, _other = ended(), ended()
    with transaction.atomic():
        lock(busy)
        assert [counts(pruned) for pruned in prune_elsewhere()] == [(1, 2, 1, 1)]
    assert f"Job {busy.pk} stays" in caplog.text
    assert kept() == {busy.pk}


@pytest.mark.django_db(transaction=True)
def test_prune_skips_a_job_whose_relaunch_is_being_committed(ended: EndedJob) -> None:
    old = ended()
    with transaction.atomic():
        again = ended(days=0, relaunched_from=old)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # As a commit does first.
        assert [counts(pruned) for pruned in prune_elsewhere()] == [(0, 0, 0, 1)]
    assert kept() == {old.pk, again.pk}


@pytest.mark.django_db(transaction=True)
def test_prune_keeps_a_job_that_is_relaunched_after_it_was_found(
    ended: EndedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    ended(days=200)
    late = ended(days=100)
    remove = retention._remove

    def relaunch_first(*arguments: object) -> object:
        if not late.relaunches.exists():
            ended(days=0, relaunched_from=late)
        return remove(*arguments)

    monkeypatch.setattr(retention, "_remove", relaunch_first)
    assert counts(jobs_prune(older_than=DAYS_90)) == (1, 2, 1, 0)
    assert kept() == {late.pk, late.relaunches.get().pk}


@pytest.mark.django_db(transaction=True)
def test_two_prunes_at_once_remove_each_job_once(
    ended: EndedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for _ in range(20):
        ended()
    found = zip(*map(counts, prune_elsewhere(times=2)), strict=True)
    assert [sum(column) for column in found][:3] == [20, 40, 20]
    assert rows() == (0, 0, 0)


@pytest.fixture
def foreign_table(transactional_db: None) -> Iterator[Callable[[Job], None]]:
    """Have something that Django knows nothing of refer to a job."""

    def refer(job: Job) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO invoice VALUES (%s)", [job.pk])

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE invoice (job uuid REFERENCES jobs DEFERRABLE)")
    yield refer
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE invoice")


def test_prune_keeps_a_job_that_a_foreign_table_refers_to_and_removes_the_others(
    foreign_table: Callable[[Job], None],
    chain: Callable[..., list[Job]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain(400, 300, 200)
    before, needed, after = chain(300, 250, 200)
    foreign_table(needed)
    assert counts(jobs_prune(older_than=DAYS_90)) == (4, 8, 4, 1)
    assert kept() == {before.pk, needed.pk}
    assert after.pk not in kept()
    assert needed.events.count() == 2
    assert f"Job {needed.pk} stays" in caplog.text


# --- The command -------------------------------------------------------------


def test_a_dry_run_of_prune_prints_the_counts_and_removes_nothing(
    ended: EndedJob, chain: Callable[..., list[Job]]
) -> None:
    ended(days=1)
    chain(300, 200)
    before = rows()
    with transaction.atomic():
        said = prune("--older-than", "90d", "--dry-run")
    assert rows() == before == (3, 6, 3)
    assert said.startswith("Would remove what ended before ")
    assert said.endswith(" UTC: jobs 2, events 4, parcels 2.\n")


def test_the_prune_command_prints_one_line_and_logs_one(
    ended: EndedJob, caplog: pytest.LogCaptureFixture
) -> None:
    ended()
    with caplog.at_level(logging.INFO, "jobs.retention"):
        said = prune("--older-than", "90d")
    assert said.startswith("Removed what ended before ")
    assert said.endswith(" UTC: jobs 1, events 2, parcels 1.\n")
    (trace,) = caplog.messages
    assert trace.startswith("Pruned 1 jobs that had ended before ")
    assert trace.endswith(", with 2 events and 1 parcels")


@pytest.mark.parametrize(
    ("age", "hours"), [("1h", 1), ("12h", 12), ("90d", 90 * 24), ("2w", 14 * 24)]
)
def test_the_prune_command_takes_hours_days_or_weeks(age: str, hours: int, ended: EndedJob) -> None:
    ended(days=(hours + 0.1) / 24)
    young = ended(days=(hours - 0.1) / 24)
    prune("--older-than", age)
    assert kept() == {young.pk}


def test_the_prune_command_takes_the_largest_age_that_can_be_given(db: None) -> None:
    assert "jobs 0," in prune("--older-than", "99999w")


@pytest.mark.parametrize(
    "age",
    ["", "90", "d", "0d", "-1d", "+1d", "1.5d", "1m", "1y", "90 d", "90d ", "90d\n", "1D", "1w2d",
     "100000d", "٣d", "all"],
)  # fmt: skip
def test_the_prune_command_refuses_a_malformed_age(age: str, ended: EndedJob) -> None:
    ended(days=9999)
    with pytest.raises(CommandError, match="--older-than takes a number from 1 to 99999"):
        prune(f"--older-than={age}")
    assert rows() == (1, 2, 1)


def test_the_prune_command_requires_an_age(db: None) -> None:
    with pytest.raises(CommandError, match="--older-than"):
        prune()
