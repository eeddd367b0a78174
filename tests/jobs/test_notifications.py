"""A program that reaches Redis can write any entry: a worker runs wake-ups from Ketter alone."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, get_commands
from rq.command import send_command
from rq.exceptions import InvalidJobOperation

from jobs.models import Job
from jobs.queueing.notify import QUEUE, TASK, notify
from jobs.queueing.queue_records import TASKS, WakeUp
from jobs.services import job_create
from jobs.states import Status
from portals.models import Portal
from tests.jobs.helpers import MEGABYTE, SHORT, wait_for, wait_for_bytes, wait_for_status
from tests.jobs.strangers import NAMELESS, SOME_ID, STRANGERS, Bomb, Put, queue_of
from tests.rig.events import codes

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def large(lab: Portal) -> Path:
    """A file whose copy lasts some seconds where a job is held to a megabyte a second."""
    folder = Path(lab.root_path) / "day1"
    folder.mkdir()
    (folder / "a.bin").write_bytes(os.urandom(4 * MEGABYTE))
    return folder


@pytest.mark.slow
def test_a_worker_runs_no_foreign_queue_entry_and_keeps_running(
    worker: StartWorker,
    clean_redis: Any,
    large: Path,
    oscar: User,
    order: dict[str, Any],
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    queue = queue_of(clean_redis)
    for put in (*STRANGERS, *NAMELESS):
        put(queue, mark)

    process = worker(**SHORT)
    job = job_create(by=oscar, **order)

    wait_for_status(job, Status.DONE)
    wait_for(lambda: not clean_redis.llen(queue.key))
    time.sleep(2.5)  # rq tidies up meanwhile.
    assert process.poll() is None
    assert not mark.exists()
    log = (tmp_path / "worker-0.log").read_text()
    assert "Traceback" not in log, log
    assert log.count("which is no wake-up from Ketter") == len(STRANGERS)
    assert "it names 'os.mkdir', which is no task" in log
    assert "it has success_callback_name" in log
    # rq itself removes what has no record, every ten minutes.
    wait_for(lambda: clean_redis.lrange(queue.intermediate_queue_key, 0, -1) == [b"gone"])
    left = [key for key in clean_redis.keys("rq:job:*") if job.pk.hex.encode() not in key]
    assert [key for key in left if key != b"rq:job:text"] == []


@pytest.mark.parametrize("put", STRANGERS, ids=lambda put: put.__name__)
def test_a_foreign_queue_entry_can_be_fetched_but_does_nothing(
    put: Put, clean_redis: Any, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    put(queue_of(clean_redis), mark)
    (key,) = clean_redis.keys("rq:job:*")

    found: Any = WakeUp.fetch(key.decode().removeprefix("rq:job:"), clean_redis)

    assert found.refusal
    assert found.description == f"not run: {found.refusal}"
    assert (found.success_callback, found.failure_callback, found.stopped_callback) == (None,) * 3
    assert (found.retries_left, found.repeats_left, found.webhooks, found.meta) == (
        *(None, None, [], {}),
    )
    with pytest.raises(InvalidJobOperation):
        found.perform()
    assert not mark.exists()


def test_a_wake_up_from_ketter_is_accepted(clean_redis: Any) -> None:
    notify(uuid.UUID(int=7))
    queue = django_rq.get_queue(QUEUE)

    found: Any
    (found,) = queue.get_jobs()

    assert isinstance(found, WakeUp)
    assert found.refusal == ""
    assert (found.func_name, found.args, found.kwargs) == (TASK, [SOME_ID], {})
    assert found.func.__name__ == "run_job"


def test_run_job_is_the_only_task_a_wake_up_may_name(clean_redis: Any) -> None:
    """A new one must take the id of one row, whatever row that is."""
    assert TASKS == ("jobs.tasks.run_job",)


def test_a_failed_wake_up_that_rqs_pages_queue_again_is_accepted(clean_redis: Any) -> None:
    """rq's own marks in a record, as of a wake-up that failed and is queued again."""
    notify(uuid.UUID(int=7))
    (key,) = clean_redis.keys("rq:job:*")
    more = {"exc_info": zlib.compress(b"Traceback"), "started_at": "2026-01-01T00:00:00.000000Z"}
    clean_redis.hset(key, mapping={**more, "worker_name": "w", "status": "failed"})

    found: Any = WakeUp.fetch(key.decode().removeprefix("rq:job:"), clean_redis)
    assert found.refusal == ""


def test_rqs_cleanup_calls_no_callback_of_an_abandoned_foreign_entry(
    worker: StartWorker, clean_redis: Any, tmp_path: Path
) -> None:
    """rq's tidying calls back for what was started and never ended: in the worker's parent."""
    mark = tmp_path / "mark"
    data = json.dumps([TASK, None, [SOME_ID], {}]).encode()
    record: dict[Any, Any] = {"data": data, "status": b"started", "origin": b"default"}
    record |= {"failure_callback_name": b"tests.jobs.test_notifications.leave_mark"}
    clean_redis.hset("rq:job:lost", mapping={**record, "meta": pickle.dumps(Bomb(str(mark)))})
    clean_redis.zadd("rq:wip:default", {"lost:1": 1})

    process = worker(KETTER_TEST_MARK=mark, **SHORT)

    wait_for(lambda: not clean_redis.zcard("rq:wip:default"))
    assert process.poll() is None
    assert not mark.exists()


def leave_mark(*args: object) -> None:
    """A function that no worker may call."""
    Path(os.environ["KETTER_TEST_MARK"]).mkdir()


def test_rq_unpickles_no_record_by_default(clean_redis: Any, tmp_path: Path) -> None:
    from rq.job import Job as RqJob

    mark = tmp_path / "mark"
    clean_redis.hset("rq:job:x", mapping={"data": b"x", "meta": pickle.dumps(Bomb(str(mark)))})
    RqJob.fetch("x", connection=clean_redis)

    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(str(mark))))
    assert mark.exists(), "the bomb is none"


@pytest.mark.parametrize("command", ["rqworker-pool", "rqscheduler", "rqcron", "rqenqueue"])
def test_rq_commands_that_could_run_any_function_are_refused_in_a_sentence(command: str) -> None:
    assert get_commands()[command] == "jobs"

    ended = subprocess.run(
        [sys.executable, "manage.py", command, "--num-workers", "2", "-q", "default", "os.system"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert re.fullmatch(rf"CommandError: {command} .+\.\n", ended.stderr)
    with pytest.raises(CommandError):
        call_command(command)


def test_ketter_replaces_every_django_rq_command_that_runs_or_queues() -> None:
    """A new one of a new version is looked at before it is left to people."""
    left = {name for name, app in get_commands().items() if app == "django_rq"}

    assert left == {"rqresume", "rqstats", "rqsuspend"}


@pytest.mark.slow
def test_a_worker_ignores_a_command_to_shut_down_that_comes_through_redis(
    worker: StartWorker, clean_redis: Any, tmp_path: Path
) -> None:
    process = worker(**SHORT)
    (key,) = clean_redis.smembers("rq:workers")
    name = key.decode().removeprefix("rq:worker:")
    channel = f"rq:pubsub:{name}"
    wait_for(lambda: clean_redis.pubsub_numsub(channel)[0][1])

    send_command(clean_redis, name, "shutdown")
    for odd in (b"\xff", b"[]", b"{}", b"null", b'{"command": ["x"]}', b'{"command": "stop-job"}'):
        clean_redis.publish(channel, odd)
    send_command(clean_redis, name, "kill-horse")

    time.sleep(2)
    assert process.poll() is None
    log = (tmp_path / "worker-0.log").read_text()
    assert "ignored the command 'shutdown'" in log
    assert "Traceback" not in log, log


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stop-job", "kill-horse", "stop-execution", "deleted"])
def test_a_job_whose_run_is_stopped_in_rqs_pages_is_taken_back_at_once(
    command: str,
    worker: StartWorker,
    clean_redis: Any,
    large: Path,
    oscar: User,
    order: dict[str, Any],
) -> None:
    process = worker(KETTER_LEASE_SECONDS=60, KETTER_REAPER_SECONDS=5)
    job = job_create(by=oscar, **order, bandwidth_limit=MEGABYTE)
    wait_for_bytes(job)
    (key,) = clean_redis.smembers("rq:workers")
    name = key.decode().removeprefix("rq:worker:")
    (wake_up_id, execution_id) = clean_redis.zrange("rq:wip:default", 0, 0)[0].decode().split(":")

    if (
        command == "deleted"
    ):  # In the pages as well: then Redis has no record of the wake-up any more.
        WakeUp.fetch(wake_up_id, clean_redis).delete()
        send_command(clean_redis, name, "kill-horse")
    else:
        send_command(clean_redis, name, command, job_id=wake_up_id, execution_id=execution_id)

    took = wait_for(lambda: "WORKER_LOST" in codes(job), 20)
    assert took < 3
    event = job.events.get(code="WORKER_LOST")
    obeyed = "kill-horse" if command == "deleted" else command
    assert f"stopped by the command {obeyed} of the queue's pages" in event.message
    Job.objects.filter(pk=job.pk).update(bandwidth_limit=0)
    wait_for_status(job, Status.DONE)
    assert process.poll() is None
