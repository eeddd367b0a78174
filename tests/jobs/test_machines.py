"""A job over a portal of the kind *this machine* is run by a worker of that machine, or waits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User

from engine.loans import LentParcel, Location
from jobs.errors import InvalidJob
from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.attempts import job_claim, job_hand_back, jobs_eligible
from jobs.queueing.eligibility import next_here
from jobs.queueing.parcel_leases import lease_take, leases_renew
from jobs.running import execution
from jobs.running.request import request_for
from jobs.services import job_cancel, job_create, job_relaunch
from jobs.states import Status
from jobs.tasks import run_job
from portals.errors import MachineAlive, OtherMachine
from portals.machines import machine_rename, machine_seen
from portals.models import Machine, Portal
from portals.services import portal_update
from tests.factories import PortalFactory
from tests.jobs.helpers import tree
from tests.jobs.on_machines import HERE, on
from tests.rig.events import codes

pytestmark = pytest.mark.django_db(transaction=True)

JobIn = Callable[..., Job]


@pytest.fixture(autouse=True)
def _here(settings: Any, clean_redis: redis.Redis) -> None:
    """The machine of the portals, where this process runs unless a test says otherwise."""
    settings.KETTER_MACHINE = HERE


@pytest.fixture
def move(oscar: User, order: dict[str, Any], lab: Portal) -> Job:
    """A queued move from this machine."""
    (Path(lab.root_path) / "day1").mkdir()
    (Path(lab.root_path) / "day1/clip").write_bytes(b"clip")
    return job_create(by=oscar, **order, mode="move")


def status_of(job: Job) -> str:
    job.refresh_from_db()
    return job.status


# --- Whose turn it is ----------------------------------------------------------


@pytest.mark.parametrize("alive", [True, False], ids=["its own is alive", "its own is not"])
def test_a_move_is_not_run_by_a_worker_of_another_machine_with_the_same_folder(
    move: Job, lab: Portal, srvtrf: Portal, alive: bool
) -> None:
    if alive:
        machine_seen(name=HERE)
    before = tree(Path(lab.root_path))
    with on("lab-2"):
        run_job(str(move.pk))
    assert (status_of(move), move.attempt, move.frozen) == (Status.QUEUED, 0, None)
    assert (tree(Path(lab.root_path)), tree(Path(srvtrf.root_path))) == (before, {})
    assert codes(move) == ["CREATED"]

    run_job(str(move.pk))
    assert (status_of(move), tree(Path(lab.root_path))) == (Status.DONE, {"day1": None})
    assert (Path(srvtrf.root_path) / "in/day1/clip").read_bytes() == b"clip"


def test_a_job_names_the_machine_that_it_waits_for_and_offers_a_new_name(move: Job) -> None:
    with on("lab-2"):
        assert job_claim(worker="w2") is None
        move.refresh_from_db()
        assert "on machine “lab-1”, where no worker is alive. If “lab-2” is that" in move.waits_for
        machine_seen(name="lab-3")
        assert job_claim(worker="w2") is None
        move.refresh_from_db()
        assert move.waits_for == (
            "Waits for a worker on machine “lab-1”, where portal “lab” is: none is alive."
        )


def test_a_job_that_a_worker_of_its_machine_may_start_waits_for_nothing(move: Job) -> None:
    machine_seen(name=HERE)
    with on("lab-2"):
        assert job_claim(worker="w2") is None
        assert jobs_eligible() == [move]
        assert next_here() is None
    move.refresh_from_db()
    assert move.waits_for == ""
    assert next_here() == move


def test_a_worker_passes_over_the_job_of_another_machine_and_takes_the_next(
    move: Job, oscar: User, tmp_path: Path
) -> None:
    machine_seen(name=HERE)
    portal = PortalFactory.create(machine="lab-2", root_path=str(tmp_path))
    places = {"source_path": "a", "target_path": "b"}
    other = job_create(by=oscar, source_portal=portal, target_portal=portal, **places)
    with on("lab-2"):
        claimed = job_claim(worker="w2")
    assert claimed == other
    assert job_claim(worker="w1") == move


@pytest.mark.parametrize("side", ["source", "target"])
def test_one_end_on_another_machine_is_enough_to_leave_a_job_alone(
    job_in: JobIn, side: str
) -> None:
    far = PortalFactory.create(kind="ssh", host="srvtrf")
    near = PortalFactory.create()
    other = {"source": "target", "target": "source"}[side]
    job = job_in(Status.QUEUED, **{f"{side}_portal": near, f"{other}_portal": far})
    with on("lab-2"):
        assert job_claim(worker="w2") is None
    assert job_claim(worker="w1") == job


def test_a_job_between_portals_behind_ssh_is_started_by_any_machine(job_in: JobIn) -> None:
    portals = [PortalFactory.create(kind="ssh", host=host) for host in ("a", "b")]
    job = job_in(Status.QUEUED, source_portal=portals[0], target_portal=portals[1])
    with on("lab-2"):
        assert job_claim(worker="w2") == job


def test_the_same_path_on_two_machines_is_two_places(oscar: User, tmp_path: Path) -> None:
    places = {"source_path": "a", "target_path": "b"}
    for machine in (HERE, "lab-2"):
        portal = PortalFactory.create(machine=machine, root_path=str(tmp_path))
        job_create(by=oscar, source_portal=portal, target_portal=portal, **places)
    assert job_claim(worker="w1") is not None
    with on("lab-2"):
        assert job_claim(worker="w2") is not None


# --- A job that has begun --------------------------------------------------------


def begun(job: Job) -> Job:
    """The job after a first attempt here, queued again."""
    assert job_claim(worker="w1") == job
    job.refresh_from_db()
    reaper.give_back(worker="w1", reason="a test")
    job.refresh_from_db()
    assert (job.status, job.attempt) == (Status.QUEUED, 1)
    return job


def test_a_begun_job_stays_at_its_machine_though_its_portals_are_given_to_another(
    move: Job, lab: Portal, srvtrf: Portal
) -> None:
    job = begun(move)
    for portal in (lab, srvtrf):
        portal_update(portal, machine="lab-2")
    with on("lab-2"):
        assert job_claim(worker="w2") is None
    run_job(str(job.pk))
    assert status_of(job) == Status.DONE


def test_a_begun_job_goes_on_when_a_person_says_that_its_machine_was_renamed(
    move: Job, lab: Portal
) -> None:
    job = begun(move)
    with on("lab-2"):
        run_job(str(job.pk))
        assert status_of(job) == Status.QUEUED
        Machine.objects.all().delete()
        machine_seen(name="lab-2")
        machine_rename(portal=lab, to="lab-2")
        run_job(str(job.pk))
    assert (status_of(job), job.attempt) == (Status.DONE, 2)


def test_a_begun_move_is_not_run_by_another_machine_that_got_the_old_name_of_its_own(
    move: Job, lab: Portal, srvtrf: Portal
) -> None:
    """`lab-1` is called `lab-2` now, another machine `lab-1`; then the portals are edited."""
    job = begun(move)
    Machine.objects.all().delete()
    machine_seen(name="lab-2")
    machine_rename(portal=lab, to="lab-2")
    for portal in (lab, srvtrf):
        portal_update(portal, machine="lab-3")
    before = tree(Path(lab.root_path))
    run_job(str(job.pk))
    assert (status_of(job), tree(Path(lab.root_path))) == (Status.QUEUED, before)
    with on("lab-2"):
        run_job(str(job.pk))
    assert status_of(job) == Status.DONE


def test_a_job_begun_by_a_version_without_machines_keeps_the_one_where_it_goes_on(
    move: Job, lab: Portal
) -> None:
    job = begun(move)
    assert job.frozen is not None
    for side in job.frozen.values():
        del side["machine"]
    job.save()
    with on("lab-2"):
        assert job_claim(worker="w2") is None
    assert job_claim(worker="w1") == job
    job.refresh_from_db()
    assert [side["machine"] for side in job.frozen.values()] == [HERE, HERE]


def test_only_the_machine_of_the_target_cleans_up_after_a_cancelled_job(
    move: Job, oscar: User
) -> None:
    job = begun(move)
    job_cancel(job, by=oscar)
    with on("lab-2"):
        assert job_claim(worker="w2", cancelled_only=True) is None
        run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, "on machine “lab-1”" in job.waits_for) == (Status.QUEUED, True)
    run_job(str(job.pk))
    assert status_of(job) == Status.CANCELLED


def test_any_machine_cleans_up_at_a_host_behind_ssh_after_a_cancelled_job(
    job_in: JobIn, oscar: User
) -> None:
    far = PortalFactory.create(kind="ssh", host="srvtrf")
    job = begun(job_in(Status.QUEUED, target_portal=far))
    job_cancel(job, by=oscar)
    with on("lab-2"):
        assert job_claim(worker="w2", cancelled_only=True) == job


# --- Two machines ------------------------------------------------------------------


def test_a_job_between_two_machines_is_refused_at_its_launch(
    oscar: User, order: dict[str, Any], srvtrf: Portal, job_in: JobIn
) -> None:
    srvtrf = portal_update(srvtrf, machine="lab-2")
    with pytest.raises(InvalidJob) as refused:
        job_create(by=oscar, **{**order, "target_portal": srvtrf})
    assert (refused.value.code, list(refused.value.problems)) == ("TWO_MACHINES", ["target_portal"])
    assert "“lab” is on machine “lab-1” and portal “srvtrf” on machine “lab-2”" in str(
        refused.value
    )
    ended = job_in(Status.DONE, **{**order, "target_portal": srvtrf})
    with pytest.raises(InvalidJob):
        job_relaunch(ended, by=oscar)


def test_a_queued_job_whose_portals_come_to_be_on_two_machines_says_so(
    move: Job, srvtrf: Portal
) -> None:
    portal_update(srvtrf, machine="lab-2")
    for machine in (HERE, "lab-2"):
        with on(machine):
            assert job_claim(worker="w") is None
    move.refresh_from_db()
    assert "so no worker has both folders" in move.waits_for


# --- Whatever is asked, no other machine's folder is used ----------------------------


def test_no_request_is_made_for_a_folder_of_another_machine(move: Job, lab: Portal) -> None:
    job = job_claim(worker="w1")
    assert job == move
    with on("lab-2"), pytest.raises(OtherMachine):
        request_for(job)


def test_a_job_that_comes_to_the_wrong_machine_goes_back_into_the_queue_untouched(
    move: Job, lab: Portal, srvtrf: Portal
) -> None:
    before = tree(Path(lab.root_path))
    job = job_claim(worker="w1")
    assert job is not None
    with on("lab-2"):
        execution.finish(job, execution.transfer(job))
    assert (status_of(job), job.error_code) == (Status.RETRY_WAIT, "OTHER_MACHINE")
    assert (tree(Path(lab.root_path)), tree(Path(srvtrf.root_path))) == (before, {})


def test_no_worker_of_another_machine_cleans_up_after_a_replaced_attempt(
    job_in: JobIn, lab: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_in(Status.DONE, source_portal=lab, target_portal=lab, attempt=1)
    with on("lab-2"), caplog.at_level(logging.WARNING):
        execution.clear_after_end(job)
    assert "is on machine “lab-1”, and this is “lab-2”" in caplog.text


def test_no_worker_of_another_machine_helps_with_a_job(job_in: JobIn) -> None:
    job = job_in(Status.RUNNING)
    place = Location("x", "y", (), "boot 1", (1, 2), "boot 2")
    parcel = LentParcel(1, "zip", 1, 100, b"list")
    leases_renew(job, forget=(), location=place, loans=[parcel], most=3)
    with on("lab-2"):
        assert lease_take(worker="w2", label="w2") is None
    assert lease_take(worker="w1", label="w1") is not None


# --- The portal of a job that has begun was edited -------------------------------


@pytest.fixture
def given_back(move: Job) -> Job:
    """That move, begun on this machine and given back."""
    job = job_claim(worker="w1")
    assert job
    return job_hand_back(job)


def why(job: Job) -> str:
    """What a job waits for, as a worker of lab-2 finds it."""
    with on("lab-2"):
        machine_seen(name="lab-2")
        assert job_claim(worker="w2") is None
    job.refresh_from_db()
    return job.waits_for


def test_a_begun_job_names_a_way_back_that_is_not_refused(
    given_back: Job, lab: Portal, srvtrf: Portal
) -> None:
    """It named the confirmation of a new name, which is refused: the portal is on lab-2."""
    Machine.objects.filter(name=HERE).delete()
    for portal in (lab, srvtrf):
        portal_update(portal, machine="lab-2")
    said = why(given_back)
    assert "This job began on machine “lab-1”, where no worker is alive" in said
    assert "Start a worker with KETTER_MACHINE=lab-1" in said
    assert "enter “lab-1” at the portal again instead, and confirm the new name" in said
    with pytest.raises(MachineAlive):
        machine_rename(portal=lab, to="lab-2")

    for portal in (lab, srvtrf):
        portal_update(portal, machine="lab-1")
    machine_rename(portal=lab, to="lab-2")
    with on("lab-2"):
        assert job_claim(worker="w2") == given_back


def test_a_begun_job_of_a_machine_that_was_renamed_before_names_no_way_that_does_not_work(
    given_back: Job, lab: Portal
) -> None:
    Machine.objects.filter(name=HERE).delete()
    Portal.objects.filter(pk=lab.pk).update(former_machines="lab-0")
    portal_update(lab, machine="lab-2")
    said = why(given_back)
    assert "Start a worker with KETTER_MACHINE=lab-1" in said
    assert "confirm" not in said
    assert job_claim(worker="w1") == given_back


def test_a_begun_job_whose_portal_is_behind_ssh_now_names_the_machine_that_it_needs(
    given_back: Job, lab: Portal
) -> None:
    Machine.objects.filter(name=HERE).delete()
    portal_update(lab, kind="ssh", host="nas")
    said = why(given_back)
    assert "portal “lab” was changed to a host behind SSH since" in said
    assert "confirm" not in said
