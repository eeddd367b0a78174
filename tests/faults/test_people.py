"""What people do while a job runs: cancel it, edit its portals, delete them, upgrade workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db.models import ProtectedError

from engine.agent.inspect import machine
from engine.agent.target.journal import Journal
from jobs.models import Job
from jobs.services import job_cancel, job_pause
from jobs.states import Status
from portals.errors import PortalInUse
from portals.services import portal_delete, portal_update
from tests.faults.crew import Stage
from tests.faults.here import Here
from tests.faults.killpoints import POINTS, lose_an_agent
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db

#: What is asked for when all is being put into place may come too late: then the transfer counts.
TOO_LATE = ("publish", "cleanup", "remove_source")


@pytest.mark.fault("+")
@pytest.mark.django_db(transaction=True)
def test_cancelling_a_job_in_any_phase_undoes_it_unless_it_already_publishes(stage: Stage) -> None:
    """Fault +: cancel in each phase; version skew; portal edited or deleted while its job runs."""
    jobs = {
        (mode, point): stage.launch(
            f"{mode}-{point}",
            lambda root: build_small(root, 60),
            mode=mode,
            failpoint=f"{point}:cancel",
        )
        for mode in ("copy", "move")
        for point in POINTS
        if mode == "move" or point != "remove_source"
    }
    stage.crew.start(3)

    stage.wait()

    for (_, point), job in jobs.items():
        job.refresh_from_db()
        oracle = stage.oracles[job]
        if job.status == Status.DONE:
            assert point in TOO_LATE, point
            oracle.judge(job)
            continue
        oracle.judge(job, status=Status.CANCELLED)
        if point not in TOO_LATE:
            assert not oracle.target.exists(), point
            assert oracle.trees()[0] == oracle.before


@pytest.mark.fault("+")
def test_a_running_job_keeps_its_roots_when_its_portals_are_edited(
    here: Here, tmp_path: Path
) -> None:
    """Fault +: cancel in each phase; version skew; portal edited or deleted while its job runs."""
    build_small(here.source, 40)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = here.target

    def edit() -> None:
        portal_update(here.srvtrf, root_path=str(elsewhere))
        portal_update(here.lab, root_path=str(elsewhere))

    job = here.run(at="transfer", meddle=edit, mode="move")

    assert job.status == Status.DONE, job.error_message
    here.oracles[job].judge(job)
    assert len(list(target.rglob("*.dpx"))) == 40
    assert list(elsewhere.iterdir()) == []


@pytest.mark.fault("+")
def test_a_retried_job_keeps_its_roots_when_its_portal_is_edited_in_between(
    here: Here, tmp_path: Path
) -> None:
    """Fault +: cancel in each phase; version skew; portal edited or deleted while its job runs."""
    build_small(here.source, 40)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = here.target

    job = here.launch(at="verify", meddle=lose_an_agent, mode="move")
    job = here.attempt(job)
    assert job.status == Status.RETRY_WAIT, job.error_message
    portal_update(here.srvtrf, root_path=str(elsewhere))

    job = here.attempt(job)

    assert job.status == Status.DONE, job.error_message
    assert len(list(target.rglob("*.dpx"))) == 40
    assert list(elsewhere.iterdir()) == []


@pytest.mark.fault("+")
def test_a_portal_cannot_be_deleted_while_its_job_runs(here: Here) -> None:
    """Fault +: cancel in each phase; version skew; portal edited or deleted while its job runs."""
    build_small(here.source, 40)
    refused = []

    def delete() -> None:
        for portal in (here.lab, here.srvtrf):
            try:
                portal_delete(portal)
            except (PortalInUse, ProtectedError):
                refused.append(portal.name)

    job = here.run(at="transfer", meddle=delete)

    assert refused == ["lab", "srvtrf"]
    here.judge(job)


@pytest.mark.fault("+")
def test_a_job_of_a_newer_version_waits_for_a_worker_that_knows_its_strategy(here: Here) -> None:
    """Fault +: cancel in each phase; version skew; portal edited or deleted while its job runs."""
    build_small(here.source, 40)
    job = here.launch()
    Job.objects.filter(pk=job.pk).update(strategy="entangled")

    job = here.attempt(job)

    assert (job.status, job.attempt) == (Status.QUEUED, 0)
    assert "strategy entangled" in job.waits_for
    Job.objects.filter(pk=job.pk).update(strategy="zip")  # As another worker reads it.
    here.judge(here.attempt(job))


def write_newer_records(left: Path) -> None:
    """Records in the journal of kinds that this version does not know."""
    folder = os.open(left, os.O_RDONLY)
    journal = Journal(folder, machine())
    journal.add({"entangled": 1, "list": 3}, b"what may be")
    journal.close()
    os.close(folder)


def replace_journal(left: Path) -> None:
    """A journal that this version cannot read."""
    (left / "journal").write_bytes(b"KETTER 9\n\0\xff of another version")


def remove_fence(left: Path) -> None:
    """No fence, as where another version has none."""
    (left / "fence").unlink()


def remove_times(left: Path) -> None:
    """No times, as where another version keeps none."""
    (left / "times").unlink()


@pytest.mark.fault("+")
@pytest.mark.parametrize(
    "damage", [write_newer_records, replace_journal, remove_fence, remove_times]
)
def test_a_retried_job_is_done_whatever_another_version_left_in_its_staging_folder(
    here: Here, damage: Callable[[Path], None]
) -> None:
    """Fault +: cancel in each phase; version skew; portal edited or deleted while its job runs."""
    build_small(here.source, 40)
    job = here.attempt(here.launch(at="verify", meddle=lose_an_agent))
    assert job.status == Status.RETRY_WAIT, job.error_message
    (left,) = here.target.glob(".ketter-*.part")
    damage(left)

    job = here.attempt(job)

    here.judge(job)
    if damage is write_newer_records:
        assert job.plan["resumed"] > 0


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_paused_job_is_cancelled_and_cleaned_up_while_every_worker_is_busy(
    stage: Stage,
) -> None:
    paused = stage.launch("paused", build_slow, bandwidth_limit=SLOW)
    busy = stage.launch("busy", build_slow, bandwidth_limit=SLOW)
    stage.crew.start(1)
    stage.watch(lambda: has_arrived(paused))
    job_pause(paused, by=stage.by)
    stage.watch(lambda: has_arrived(busy))
    assert [*Path(stage.far.root_path).glob("in/paused/.ketter-*.part")]

    job_cancel(paused, by=stage.by)
    stage.wait(paused, seconds=10)

    assert not Path(stage.far.root_path, "in", "paused").exists()
    assert Job.objects.get(pk=busy.pk).status == Status.RUNNING
    job_cancel(busy, by=stage.by)
    stage.wait(busy)
    for job in (paused, busy):
        stage.oracles[job].judge(job, status=Status.CANCELLED)


#: Bytes per second, and how many there are of each tree.
SLOW, MANY = 500_000, 20_000_000


def build_slow(root: Path) -> None:
    """A tree that takes longer than anybody waits."""
    root.mkdir()
    (root / "large.mov").write_bytes(os.urandom(MANY))


def has_arrived(job: Job) -> bool:
    """Whether some of a job is at the target."""
    return Job.objects.get(pk=job.pk).bytes_done > 0
