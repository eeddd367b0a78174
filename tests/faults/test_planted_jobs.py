"""Others change what a job has staged: another user of the target's host, or of its account."""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import OperationalError

from engine.agent.inspect import machine
from engine.agent.target.journal import Journal
from jobs.models import Job
from jobs.running import proof_record
from jobs.running.proof_record import JobRecord
from jobs.services import job_cancel, job_resume
from jobs.states import Status
from tests.faults.here import Here
from tests.faults.killpoints import lose_an_agent
from tests.rig.interrupted import Held, forge, staging
from tests.rig.records import reading_again
from tests.rig.trees import assert_equal_trees, build_small, snapshot

STRANGER = 64123
SOON = 30.0

pytestmark = pytest.mark.django_db


def broken_off(here: Here, **order: str) -> tuple[Job, Path]:
    """A job whose first attempt broke off, and its staging folder."""
    build_small(here.source, 40)
    job = here.attempt(here.launch(at="verify", meddle=lose_an_agent, **order))
    assert job.status == Status.RETRY_WAIT, job.error_message
    (left,) = staging(here.target)
    return job, left


def plant(left: Path) -> None:
    """Have another user's folder, with pipes in it, in the place of a job's."""
    left.rename(left.with_name("moved-away"))
    left.mkdir()
    for name in ("fence", "made", "gate", "journal", "a1.lock", "a2.lock"):
        os.mkfifo(left / name)
    os.chown(left, STRANGER, STRANGER)
    left.chmod(0o777)


def test_the_name_of_a_staging_folder_contains_the_staging_key_of_its_job(here: Here) -> None:
    job, left = broken_off(here)

    assert len(job.staging_key) == 16
    assert left.name == f".ketter-{job.id.hex}-{job.staging_key}.part"
    here.judge(here.attempt(job))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_job_needs_attention_when_another_user_replaces_its_staging_folder(
    here: Here, mode: str
) -> None:
    job, left = broken_off(here, mode=mode)
    expected = snapshot(here.source)
    plant(left)
    began = time.monotonic()

    job = here.attempt(job)

    assert time.monotonic() - began < SOON
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "STAGING_NOT_OURS")
    assert f"belongs to user {STRANGER}" in job.error_message
    assert_equal_trees(expected, snapshot(here.source))
    shutil.rmtree(left)
    shutil.rmtree(left.with_name("moved-away"))
    job_resume(job, by=here.by)
    job = here.attempt(job)
    assert job.status == Status.DONE
    assert_equal_trees(expected, snapshot(here.target))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_a_cancelled_job_leaves_a_staging_folder_of_another_user_untouched(here: Here) -> None:
    job, left = broken_off(here)
    plant(left)
    before = sorted(left.iterdir())
    job_cancel(job, by=here.by)
    began = time.monotonic()

    job = here.attempt(job)

    assert time.monotonic() - began < SOON
    assert job.status == Status.CANCELLED
    last = job.events.order_by("seq").last()
    assert (last.code, last.level) == ("STAGING_LEFT", "warning")
    assert sorted(left.iterdir()) == before


@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("verify", ["stream", "readback"])
def test_a_job_sends_again_what_another_program_of_the_targets_account_forged(
    here: Here, verify: str, mode: str
) -> None:
    job, left = broken_off(here, mode=mode, verify=verify)
    forge(left)

    here.judge(here.attempt(job))


def test_a_copy_stops_at_a_nonsensical_journal(here: Here) -> None:
    job, left = broken_off(here)
    folder = os.open(left, os.O_RDONLY)
    journal = Journal(folder, machine())
    journal.add({"parcel": "?", "list": "?"}, b"nonsense")
    journal.close()
    os.close(folder)

    job = here.attempt(job)

    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "STAGING_NOT_OURS")


# -- a job's record ----------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """What both ends are asked to read again from here on."""
    with reading_again(monkeypatch) as asked:
        yield asked


def test_a_job_neither_reads_nor_sends_again_what_its_manifests_have(
    here: Here, asked: dict[str, list[str]]
) -> None:
    job, _ = broken_off(here)
    held = Held(here.target)

    job = here.attempt(job)

    here.judge(job)
    assert asked == {"hash": [], "check": []}
    assert job.plan
    assert job.plan["resumed"] > 0
    assert held.kept(here.target)


def without_manifests(job: Job) -> None:
    """As a worker leaves it that was killed within a second of the proof."""
    job.parcels.all().delete()


def with_a_damaged_manifest(job: Job) -> None:
    job.parcels.update(manifest=b"no manifest")


def with_a_manifest_of_nonsense(job: Job) -> None:
    job.parcels.update(manifest=zlib.compress(b'{"path": "f", "sha256": "zz"}\n[]\n'))


@pytest.mark.parametrize(
    "lose", [without_manifests, with_a_damaged_manifest, with_a_manifest_of_nonsense]
)
@pytest.mark.parametrize("is_forged", [False, True], ids=["honest", "forged"])
def test_a_job_without_a_record_of_what_arrived_has_both_ends_read_it_again(
    here: Here, asked: dict[str, list[str]], lose: Callable[[Job], None], is_forged: bool
) -> None:
    job, left = broken_off(here)
    lose(job)
    held = Held(here.target)
    if is_forged:
        forge(left)

    job = here.attempt(job)

    assert job.status == Status.DONE
    assert_equal_trees(snapshot(here.source), snapshot(here.target))
    assert sorted(asked["hash"]) == sorted(asked["check"])
    assert held._files.keys() <= set(asked["check"])
    assert bool(held.kept(here.target)) is not is_forged


@pytest.mark.django_db(transaction=True)
def test_a_job_waits_for_a_database_that_is_away_as_it_reads_its_record(
    here: Here, asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = broken_off(here)
    outage = [OperationalError("the database is away")]
    read = JobRecord._manifest

    def away(record: JobRecord, number: int) -> bytes:
        if outage:
            raise outage.pop()
        return read(record, number)

    monkeypatch.setattr(JobRecord, "_manifest", away)
    monkeypatch.setattr(proof_record, "RENEW_EVERY", 0.05)

    job = here.attempt(job)

    here.judge(job)
    assert (outage, asked) == ([], {"hash": [], "check": []})


def test_the_manifests_of_all_earlier_attempts_are_a_jobs_record(
    here: Here, asked: dict[str, list[str]]
) -> None:
    job, _ = broken_off(here)
    Job.objects.filter(pk=job.pk).update(attempt=4)
    job.refresh_from_db()

    assert here.attempt(job).status == Status.DONE

    assert asked == {"hash": [], "check": []}
