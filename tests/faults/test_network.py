"""Lines that break, fall silent, close half-way, crawl, or change a byte."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from jobs.models import Job
from jobs.states import Status
from tests.faults.crew import MARKED, MakeStage, Stage, in_state
from tests.faults.oracle import command_line
from tests.rig.events import codes
from tests.rig.interrupted import MIB, build_large, staged
from tests.rig.lanes import nightly
from tests.rig.relay import Relay, Way
from tests.rig.sshd import Sshd
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db(transaction=True)

#: An agent that says nothing for so long is taken for lost.
IMPATIENT = {**MARKED, "engine.connect.listener.SILENCE_SECONDS": 3.0}
#: And an attempt before that does not leave the target is not waited for as long.
HASTY = {
    **IMPATIENT,
    "agents": [*MARKED["agents"], ["DYING_SECONDS = 5.0", "DYING_SECONDS = 2.0"]],
}


@pytest.fixture
def line(sshd: Sshd) -> Iterator[Relay]:
    """The way to the far host."""
    with Relay(sshd.host, sshd.port) as relay:
        yield relay


@pytest.fixture
def far_stage(make_stage: MakeStage, sshd: Sshd, line: Relay) -> Stage:
    """The stage, its far portal at the end of that line."""
    return make_stage(sshd, line.port)


def under_way(
    stage: Stage, back: bool = False, tweaks: Mapping[str, Any] = IMPATIENT, **order: object
) -> Job:
    """A job with a large file, some of which has arrived."""
    job = stage.launch(
        "large",
        lambda root: build_large(root / "large.mov", 12 * MIB),
        bandwidth_limit=6 * MIB,
        back=back,
        **order,
    )
    stage.crew.start(1, tweaks)
    stage.watch(lambda: staged(stage.oracles[job].target) >= 5 * MIB)
    return job


@pytest.mark.fault(12)
def test_a_job_resumes_after_the_sshd_is_killed_and_started_again(
    make_stage: MakeStage, fresh_sshd: Sshd
) -> None:
    """Fault 12: sshd killed."""
    stage = make_stage(fresh_sshd)
    job = under_way(stage)

    fresh_sshd._end()

    stage.watch(in_state(job, Status.RETRY_WAIT))
    waiting = Job.objects.get(pk=job.pk)
    assert waiting.error_code in {"CONNECTION_LOST", "CONNECTION_REFUSED"}
    assert waiting.next_run_at is not None
    fresh_sshd._listen()
    stage.wait()
    stage.oracles[job].judge(job)
    assert job.plan["bytes_resumed"] >= 3 * MIB


@pytest.mark.fault(12)
def test_a_job_resumes_after_its_ssh_session_is_killed(stage: Stage) -> None:
    """Fault 12: sshd killed."""
    job = under_way(stage)

    for pid in stage.sshd.sessions():
        os.kill(pid, signal.SIGKILL)

    stage.wait()
    stage.oracles[job].judge(job)
    assert codes(job)[2] in {"CONNECTION_LOST", "CONNECTION_REFUSED"}
    assert job.plan["bytes_resumed"] >= 3 * MIB


def drop(line: Relay) -> None:
    """Reset every connection."""
    line.drop()


def half_close(line: Relay) -> None:
    """Say to the far host that nothing more will come, and to us nothing."""
    line.half_close(Way.UP)


def flip(line: Relay) -> None:
    """Change a byte of what is still to come, once."""
    line.flip(Way.UP, line.passed[Way.UP] + 100_000)
    while line.passed[Way.UP] < line.flips[Way.UP] + 200_000 and line.flips:
        time.sleep(0.05)
        if line.passed[Way.UP] > line.flips[Way.UP]:
            line.flips.clear()
            return


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("back", "spoil"),
    [(False, drop), (True, half_close), nightly(False, half_close), nightly(True, drop)],
)
def test_a_job_resumes_after_its_connection_is_reset_or_half_closed(
    far_stage: Stage, line: Relay, spoil: Callable[[Relay], None], back: bool
) -> None:
    """Fault 12: sshd killed."""
    job = under_way(far_stage, back)

    spoil(line)

    far_stage.wait()
    far_stage.oracles[job].judge(job)
    assert "RETRIED" in codes(job)
    assert job.plan["bytes_resumed"] >= 3 * MIB


@pytest.mark.fault(13)
@pytest.mark.parametrize("back", [False, nightly(True)])
def test_a_job_resumes_after_its_connection_falls_silent_during_the_transfer(
    far_stage: Stage, line: Relay, back: bool
) -> None:
    """Fault 13: network blackhole, no RST."""
    job = under_way(far_stage, back)
    began = time.monotonic()

    line.stalled = True

    far_stage.watch(in_state(job, Status.RETRY_WAIT), seconds=20)
    assert time.monotonic() - began < 15
    waiting = Job.objects.get(pk=job.pk)
    assert waiting.error_code == "STALLED", waiting.error_message
    line.drop()
    line.stalled = False
    far_stage.wait()
    far_stage.oracles[job].judge(job)
    assert job.plan["bytes_resumed"] >= 3 * MIB


@pytest.mark.fault(13)
@pytest.mark.parametrize("point", ["preflight", "publish", nightly("cleanup")])
def test_a_job_notices_a_connection_that_falls_silent_at_its_beginning_or_end(
    far_stage: Stage, line: Relay, point: str
) -> None:
    """Fault 13: network blackhole, no RST."""
    job = far_stage.launch("day1", lambda root: build_small(root, 40), failpoint=f"{point}:wait")
    gate = far_stage.crew.temp / "gate"
    far_stage.crew.start(
        1, {**IMPATIENT, "engine.connect.listener.HELLO_SECONDS": 3.0}, KETTER_FAULTS_GATE=gate
    )
    far_stage.watch(lambda: gate.with_suffix(".there").exists())
    line.stalled = True
    gate.touch()

    began = time.monotonic()
    far_stage.watch(in_state(job, Status.RETRY_WAIT, Status.DONE), seconds=20)
    assert time.monotonic() - began < 15
    line.drop()
    line.stalled = False
    far_stage.wait()
    for path in (gate, gate.with_suffix(".there")):
        path.unlink()
    far_stage.oracles[job].judge(job)


@pytest.mark.slow
@pytest.mark.fault(13)
def test_a_retry_shuts_out_the_far_agent_that_did_not_notice_the_break(
    far_stage: Stage, line: Relay
) -> None:
    """Fault 13: network blackhole, no RST."""
    job = under_way(far_stage)
    agent = far_agent(far_stage)

    line.hold()

    far_stage.watch(in_state(job, Status.RETRY_WAIT), seconds=20)
    assert is_there(agent)
    far_stage.watch(lambda: arriving(far_stage, job, attempt=2))
    # Not for its line, which still stands: it was shut out.
    assert not is_there(agent)
    line.hold(False)
    far_stage.wait()
    far_stage.oracles[job].judge(job)
    assert job.attempt == 2
    assert job.plan["bytes_resumed"] >= 3 * MIB


@pytest.mark.slow
@pytest.mark.fault(13)
def test_a_frozen_far_agent_that_wakes_up_late_writes_only_to_an_unlinked_file(
    far_stage: Stage, line: Relay
) -> None:
    """Fault 13: network blackhole, no RST."""
    job = under_way(far_stage, tweaks=HASTY)
    agent = far_agent(far_stage)
    os.kill(agent, signal.SIGSTOP)
    line.hold()
    far_stage.watch(lambda: arriving(far_stage, job, attempt=2))
    assert is_there(agent)

    with written_by(agent) as file:
        before = os.fstat(file.fileno())
        line.hold(False)
        os.kill(agent, signal.SIGCONT)
        far_stage.wait()
        after = os.fstat(file.fileno())

    # It wrote all that had been on its way, and where nobody looks.
    assert (before.st_nlink, after.st_size > before.st_size) == (0, True)
    far_stage.oracles[job].judge(job)
    assert (job.attempt, job.plan["bytes_resumed"]) == (2, 0)


def far_agent(stage: Stage) -> int:
    """The one agent behind the sshd."""
    (pid,) = [pid for pid in stage.sshd.sessions() if "-I -S" in command_line(pid)]
    return pid


def is_there(pid: int) -> bool:
    """Whether a process still runs."""
    return bool(command_line(pid))


def arriving(stage: Stage, job: Job, attempt: int) -> bool:
    """Whether the large file is staged for that attempt."""
    files = stage.oracles[job].target.glob(f".ketter-*.part/a{attempt}/large.mov")
    return any(files)


def written_by(agent: int) -> BinaryIO:
    """The file that an agent writes to, whatever became of its name."""
    (found,) = [fd for fd in Path(f"/proc/{agent}/fd").iterdir() if "large.mov" in os.readlink(fd)]
    return found.open("rb")


@pytest.mark.fault(28)
def test_a_job_resumes_after_a_byte_changes_on_its_connection(
    far_stage: Stage, line: Relay
) -> None:
    """Fault 28: bit flip in transit, in the destination, or unpacked wrong."""
    job = under_way(far_stage)

    flip(line)
    before = line.passed[Way.UP]

    far_stage.wait()
    far_stage.oracles[job].judge(job)
    assert "CONNECTION_LOST" in codes(job)
    # Of 12 MiB: what had been proven did not pass the line again.
    assert job.plan["bytes_resumed"] >= 3 * MIB
    assert line.passed[Way.UP] - before < 10 * MIB


@pytest.mark.fault(12)
def test_a_job_over_a_slow_connection_is_done_in_one_attempt(far_stage: Stage, line: Relay) -> None:
    """Fault 12: sshd killed."""
    line.rate, line.delay = MIB, 0.05
    job = far_stage.launch("day1", lambda root: build_small(root, 400))
    far_stage.crew.start(1, IMPATIENT)

    far_stage.wait()

    far_stage.oracles[job].judge(job)
    assert job.attempt == 1
