"""Another user of the target's host puts a folder where a job's staging folder was."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from engine.agent.inspect import machine
from engine.agent.target.journal import Journal
from jobs.models import Job
from jobs.services import job_cancel, job_resume
from jobs.states import Status
from tests.faults.here import Here
from tests.faults.killpoints import lose_an_agent
from tests.rig.interrupted import forge, staging
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
def test_a_move_ignores_a_forged_journal_and_a_copy_stops_at_a_nonsensical_one(
    here: Here, mode: str
) -> None:
    """Of a copy the journal is believed: only the portal's own user can write there."""
    job, left = broken_off(here, mode=mode)
    if mode == "move":
        forge(left)
    else:
        folder = os.open(left, os.O_RDONLY)
        journal = Journal(folder, machine())
        journal.add({"parcel": "?", "list": "?"}, b"nonsense")
        journal.close()
        os.close(folder)

    job = here.attempt(job)

    if mode == "move":
        here.judge(job)
    else:
        assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "STAGING_NOT_OURS")
