"""A portal is one folder: a job whose root is swapped waits for a person to confirm it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

import engine
from jobs.models import Job
from jobs.queueing.attempts import attempt_rooted
from jobs.running.observer import JobObserver
from jobs.services import job_cancel, job_create, job_resume
from jobs.states import Status
from jobs.tasks import run_job
from portals.models import Portal
from portals.services import portal_confirm_root, portal_test
from tests.jobs.helpers import tree
from tests.rig.events import codes
from tests.rig.jobs_threads import all_at_once
from tests.rig.relay import Relay

Launch = Callable[..., Job]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder that no portal is about."""
    (tmp_path / "secret" / "day1").mkdir(parents=True)
    (tmp_path / "secret" / "day1" / "key").write_bytes(b"secret")
    return tmp_path / "secret"


@pytest.fixture
def launch(oscar: User, order: dict[str, Any], lab: Portal) -> Launch:
    """Launch a job over a small tree and run it here; returns it as it ended."""
    (Path(lab.root_path) / "day1").mkdir()
    (Path(lab.root_path) / "day1" / "one").write_bytes(b"one")

    def run(**changes: Any) -> Job:
        job = job_create(by=oscar, **{**order, **changes})
        return again(job)

    return run


def again(job: Job) -> Job:
    run_job(str(job.pk))
    return Job.objects.get(pk=job.pk)


def swap(portal: Portal, to: Path) -> None:
    """What the owner of the folder above may do."""
    root = Path(portal.root_path)
    root.rename(root.with_name(f"{root.name}-2"))
    root.symlink_to(to)


def recorded(portal: Portal) -> str:
    portal.refresh_from_db()
    return portal.real_root


def test_the_first_job_records_the_real_roots_in_both_portals_and_in_itself(
    launch: Launch, lab: Portal, srvtrf: Portal
) -> None:
    assert (recorded(lab), recorded(srvtrf)) == ("", "")  # As portals of before have it.
    job = launch()
    assert job.status == Status.DONE
    assert (recorded(lab), recorded(srvtrf)) == (lab.root_path, srvtrf.root_path)
    assert job.frozen is not None
    assert job.frozen["source"]["real_root"] == lab.root_path
    assert job.frozen["target"]["real_root"] == srvtrf.root_path


@pytest.mark.parametrize("first", ["test", "job"])
@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_job_needs_attention_and_touches_no_file_when_a_root_was_swapped(
    launch: Launch, lab: Portal, srvtrf: Portal, secret: Path, side: str, mode: str, first: str
) -> None:
    if first == "job":
        launch(target_path="earlier")
    else:
        portal_test(lab)
        portal_test(srvtrf)
    portal = lab if side == "source" else srvtrf
    before = tree(secret)
    swap(portal, secret)

    job = launch(mode=mode)

    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "ROOT_MOVED")
    assert codes(job)[-1] == "ROOT_MOVED"
    for said in (f"Portal “{portal.name}”", portal.root_path, str(secret), "confirm it"):
        assert said in job.error_message
    assert tree(secret) == before
    assert recorded(portal) == portal.root_path
    assert (portal.health, portal.health_message) == ("failing", job.error_message)

    job_cancel(job, by=job.requested_by)
    job = again(job)
    assert (job.status, tree(secret)) == (Status.CANCELLED, before)


def test_a_job_with_a_swapped_root_ends_done_after_a_person_confirms_the_new_root(
    launch: Launch, lab: Portal, secret: Path, srvtrf: Portal
) -> None:
    portal_test(lab)
    swap(lab, secret)
    job = launch()
    assert job.error_code == "ROOT_MOVED"
    assert again(job_resume(job, by=job.requested_by)).error_code == "ROOT_MOVED"

    portal_confirm_root(lab, real_root=portal_test(lab).moved_to)
    job = again(job_resume(Job.objects.get(pk=job.pk), by=job.requested_by))

    assert job.status == Status.DONE
    assert (Path(srvtrf.root_path) / "in/day1/key").read_bytes() == b"secret"
    assert job.frozen is not None
    assert job.frozen["source"]["real_root"] == str(secret)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_root_that_is_swapped_between_two_attempts_stops_the_second(
    launch: Launch,
    lab: Portal,
    srvtrf: Portal,
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
) -> None:
    """Nothing was on record when the job began; the portals may even be edited meanwhile."""
    phase = JobObserver.phase

    def breaks(observer: JobObserver, now: engine.Phase) -> None:
        phase(observer, now)
        if now is engine.Phase.TRANSFER:
            raise engine.ConnectionLost("the line broke")

    with monkeypatch.context() as patched:
        patched.setattr(JobObserver, "phase", breaks)
        job = launch(mode="move")
    assert job.status == Status.RETRY_WAIT
    portal = lab if side == "source" else srvtrf
    Portal.objects.filter(pk=portal.pk).update(real_root="")  # The job itself knows it.
    swap(portal, secret)
    before = tree(secret)

    job = again(job_resume(job, by=job.requested_by))

    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "ROOT_MOVED")
    assert tree(secret) == before


def test_a_job_needs_attention_when_a_root_behind_ssh_was_swapped(
    oscar: User, order: dict[str, Any], launch: Launch, far: Portal, line: Relay, secret: Path
) -> None:
    line.rate = 0
    root = Path(far.root_path)
    (root / "day1").mkdir()
    (root / "day1" / "one").write_bytes(b"one")
    assert launch(source_portal=far, target_path="a").status == Status.DONE
    assert launch(target_portal=far, target_path="a").status == Status.DONE
    assert recorded(far) == str(root)
    before = tree(secret)
    swap(far, secret)

    for changes in ({"source_portal": far}, {"target_portal": far}):
        job = launch(mode="move", **changes)
        assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "ROOT_MOVED")
    assert tree(secret) == before


@pytest.mark.django_db(transaction=True)
def test_a_first_job_stops_if_a_simultaneous_one_records_a_different_root(
    oscar: User, order: dict[str, Any], lab: Portal, srvtrf: Portal
) -> None:
    def first(seen: str) -> Callable[[], object]:
        """Make a job that has not recorded its roots, and the step in which it does so."""
        job = job_create(by=oscar, **{**order, "target_path": seen.strip("/")})
        job = Job.objects.select_related("source_portal", "target_portal").get(pk=job.pk)
        frozen = {"kind": "local", "host": "", "port": 22}
        job.frozen = {
            "source": {**frozen, "root_path": lab.root_path},
            "target": {**frozen, "root_path": srvtrf.root_path},
        }

        def record() -> object:
            try:
                found = attempt_rooted(job, source=seen, target=srvtrf.root_path)
            except engine.RootMoved as error:
                return error.code, error.of_target
            assert found is not None
            return found["source"]["real_root"]

        return record

    ended = all_at_once([first("/one"), first("/two")])

    assert ("ROOT_MOVED", False) in ended
    assert recorded(lab) in ended
    assert len(ended) == 2


def test_a_job_needs_no_query_for_roots_that_are_on_record(
    launch: Launch, lab: Portal, srvtrf: Portal, django_assert_num_queries: Any
) -> None:
    launch(target_path="first")
    job = launch()
    with django_assert_num_queries(0):
        assert attempt_rooted(job, source=lab.root_path, target=srvtrf.root_path) is None
