"""Credentials that are refused, and keys that change: before a job, and in the middle of one."""

from __future__ import annotations

import os
import signal

import pytest

from jobs.models import Job
from jobs.services import job_resume
from jobs.states import Status
from portals.models import Portal
from portals.services import portal_pin_host_key
from tests.faults.crew import MARKED, MakeStage, Stage, in_state
from tests.rig.events import codes
from tests.rig.interrupted import MIB, build_large, staged
from tests.rig.sshd import Sshd, public_line
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db(transaction=True)


def needs_a_person(stage: Stage, job: Job, code: str) -> None:
    """It waits for somebody, and did not try again."""
    stage.watch(in_state(job, Status.NEEDS_ATTENTION), seconds=20)
    job.refresh_from_db()
    assert job.error_code == code
    assert "then resume the job" in job.error_message
    assert codes(job)[-1] == code
    marked = Portal.objects.get(pk=stage.far.pk)
    assert marked.health == ("host_key_changed" if code == "HOST_KEY_CHANGED" else "failing")
    assert marked.health_message == job.error_message
    assert Portal.objects.get(pk=stage.near.pk).health == "unknown"


@pytest.mark.fault(14)
@pytest.mark.parametrize("back", [False, True])
def test_a_job_needs_attention_when_the_host_refuses_its_credential(
    make_stage: MakeStage, fresh_sshd: Sshd, back: bool
) -> None:
    """Fault 14: authentication failure, host key changed."""
    fresh_sshd.refuse_client_key()
    stage = make_stage(fresh_sshd)
    job = stage.launch("day1", build_small, back=back)
    stage.crew.start(1)

    needs_a_person(stage, job, "AUTH_FAILED")

    assert codes(job) == ["CREATED", "STARTED", "AUTH_FAILED"]
    stage.oracles[job].no_debris()


@pytest.mark.fault(14)
def test_a_job_needs_attention_when_the_host_key_has_changed(
    make_stage: MakeStage, fresh_sshd: Sshd
) -> None:
    """Fault 14: authentication failure, host key changed."""
    stage = make_stage(fresh_sshd)
    pinned = stage.far.host_key
    fresh_sshd.rotate_host_key()
    job = stage.launch("day1", build_small, mode="move")
    stage.crew.start(1)

    needs_a_person(stage, job, "HOST_KEY_CHANGED")

    assert codes(job) == ["CREATED", "STARTED", "HOST_KEY_CHANGED"]
    assert Portal.objects.get(pk=stage.far.pk).host_key == pinned
    portal_pin_host_key(stage.far, line=fresh_sshd.host_key)
    assert Portal.objects.get(pk=stage.far.pk).health == "unknown"
    job_resume(job, by=stage.by)
    stage.wait()
    stage.oracles[job].judge(job)


@pytest.mark.fault(15)
def test_a_job_needs_attention_when_its_credential_expires_in_the_middle(
    make_stage: MakeStage, fresh_sshd: Sshd
) -> None:
    """Fault 15: credential expires mid-job."""
    stage = make_stage(fresh_sshd)
    job = stage.launch(
        "large", lambda root: build_large(root / "large.mov", 12 * MIB), bandwidth_limit=6 * MIB
    )
    stage.crew.start(1, MARKED)
    stage.watch(lambda: staged(stage.oracles[job].target) >= 5 * MIB)

    fresh_sshd.refuse_client_key()
    for pid in fresh_sshd.sessions():
        os.kill(pid, signal.SIGKILL)

    needs_a_person(stage, job, "AUTH_FAILED")
    fresh_sshd.authorized_keys.write_text(public_line(fresh_sshd.identity_file) + "\n")
    job_resume(job, by=stage.by)
    stage.wait()
    stage.oracles[job].judge(job)
    assert job.plan["bytes_resumed"] >= 3 * MIB
