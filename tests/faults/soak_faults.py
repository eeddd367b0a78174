"""The soak's faults: each hits something that runs, or says that there was nothing to hit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from uuid import UUID

from django.db import connections
from django_rq import get_connection
from redis.exceptions import RedisError

from jobs.errors import JobError
from jobs.models import Job
from jobs.queueing.notify import notify
from jobs.services import job_cancel, job_pause, job_resume
from jobs.states import LIVE, Status
from tests.faults.soak_world import LEASE, Slot, World, send

#: Takes the world and the dice; says whether it hit anything.
Fault = Callable[[World, random.Random], bool]


def _busy(world: World, dice: random.Random) -> Slot | None:
    """A worker that runs a job, if any; which one is a matter of the dice."""
    slots = [slot for slot in world.slots if slot.process and not slot.expected]
    dice.shuffle(slots)
    return next((slot for slot in slots if not slot.frozen and slot.horse()), None)


def _again(slot: Slot, dice: random.Random) -> None:
    slot.expected = True
    slot.start_at = time.monotonic() + dice.uniform(0, 2)


def worker_and_horse(world: World, dice: random.Random) -> bool:
    """Kill a worker and the process that runs its job."""
    if not (slot := _busy(world, dice)):
        return False
    _again(slot, dice)
    slot.send(signal.SIGKILL, slot.horse())
    return True


def horse(world: World, dice: random.Random) -> bool:
    """Kill only the process that runs a job."""
    if not (slot := _busy(world, dice)):
        return False
    send(slot.horse(), signal.SIGKILL)
    return True


def parent(world: World, dice: random.Random) -> bool:
    """Kill only the worker: what runs the job is an orphan."""
    if not (slot := _busy(world, dice)):
        return False
    _again(slot, dice)
    slot.send(signal.SIGKILL)
    return True


def terminate(world: World, dice: random.Random) -> bool:
    """Tell a worker to end, as a deployment does."""
    if not (slot := _busy(world, dice)):
        return False
    _again(slot, dice)
    slot.send(signal.SIGTERM)
    return True


def freeze(world: World, dice: random.Random) -> bool:
    """Stop a worker for longer than its lease, half the time with its agents; then let it go on."""
    if not (slot := _busy(world, dice)):
        return False
    pids = [slot.process.pid, slot.horse()] if slot.process else []
    if dice.random() < 0.5:
        pids += slot.agents()
    for pid in pids:
        send(pid, signal.SIGSTOP)
    slot.frozen = True

    def thaw() -> None:
        for pid in pids:
            send(pid, signal.SIGCONT)
        slot.frozen = False

    world.later(LEASE + dice.uniform(0.5, 3), thaw)
    return True


def _agent(world: World, dice: random.Random, place: int) -> bool:
    slots = list(world.slots)
    for _ in range(20):
        dice.shuffle(slots)
        for slot in slots:
            if agents := slot.agents()[place::2]:
                send(dice.choice(agents), signal.SIGKILL)
                return True
        time.sleep(0.05)
    return False


def receiver_agent(world: World, dice: random.Random) -> bool:
    """Kill an agent at a target, or the ssh that leads to it."""
    return _agent(world, dice, 0)


def sender_agent(world: World, dice: random.Random) -> bool:
    """Kill an agent at a source, or the ssh that leads to it."""
    return _agent(world, dice, 1)


def ssh_sessions(world: World, dice: random.Random) -> bool:
    """Kill all sessions at the far host."""
    return bool(world.far.kill_sessions())


def sshd_restart(world: World, dice: random.Random) -> bool:
    """Take the far host's sshd away with all its sessions, for a while."""
    world.far.away()
    world.later(dice.uniform(0, 3), world.far.back)
    return True


def line_cut(world: World, dice: random.Random) -> bool:
    """Reset every connection to the far host."""
    world.line.drop()
    return True


def line_stall(world: World, dice: random.Random) -> bool:
    """Let nothing through to the far host for a while, with connections up."""

    def go_on() -> None:
        world.line.stalled = False

    world.line.stalled = True
    world.later(dice.uniform(1, 6), go_on)
    return True


def redis_restart(world: World, dice: random.Random) -> bool:
    """Kill Valkey, which forgets everything, and start it again after a while."""
    assert world.valkey
    world.valkey.process.kill()
    world.valkey.process.wait()
    time.sleep(dice.uniform(0, 2))
    world.start_valkey()
    return True


def redis_flush(world: World, dice: random.Random) -> bool:
    """Empty Valkey."""
    get_connection().flushall()
    return True


def postgres_restart(world: World, dice: random.Random) -> bool:
    """Restart Postgres, in the proper way; for some time it is away."""
    return _postgres(world, dice, signal.SIGINT)


def postgres_crash(world: World, dice: random.Random) -> bool:
    """Have Postgres end without a checkpoint, as in a crash, and recover."""
    return _postgres(world, dice, signal.SIGQUIT)


def _postgres(world: World, dice: random.Random, how: signal.Signals) -> bool:
    assert world.postgres
    connections.close_all()
    world.postgres.process.send_signal(how)
    world.postgres.process.wait()
    time.sleep(dice.uniform(0, LEASE + 1))
    world.start_postgres()
    return True


def _operate(
    dice: random.Random, states: frozenset[Status], act: Callable[..., Job], world: World
) -> bool:
    jobs = list(Job.objects.filter(status__in=states).order_by("created_at"))
    if not jobs:
        return False
    try:
        act(dice.choice(jobs), by=world.user)
    except JobError:
        return False
    return True


def cancel(world: World, dice: random.Random) -> bool:
    """An operator cancels a job."""
    return _operate(dice, LIVE, job_cancel, world)


def pause(world: World, dice: random.Random) -> bool:
    """An operator pauses a job, most often one that runs."""
    states = {Status.RUNNING} if dice.random() < 0.8 else {Status.QUEUED, Status.RETRY_WAIT}
    return _operate(dice, frozenset(states), job_pause, world)


def resume(world: World, dice: random.Random) -> bool:
    """An operator lets a job go on that waits for somebody, or for its next try."""
    waits = frozenset({Status.PAUSED, Status.NEEDS_ATTENTION, Status.RETRY_WAIT})
    return _operate(dice, waits, job_resume, world)


def ring_twice(world: World, dice: random.Random) -> bool:
    """Ring twice for a job that is live already, and once for one that is none."""
    live = list(Job.objects.filter(status__in=LIVE).order_by("created_at"))
    with contextlib.suppress(RedisError):
        for _ in range(2):
            notify(dice.choice(live).pk if live else UUID(bytes=os.urandom(16)))
        notify(UUID(int=dice.getrandbits(128)))
    return True


#: Every fault, and how often it comes.
FAULTS: dict[Fault, int] = {
    worker_and_horse: 4,
    horse: 4,
    parent: 4,
    terminate: 4,
    freeze: 4,
    receiver_agent: 4,
    sender_agent: 4,
    ssh_sessions: 3,
    sshd_restart: 2,
    line_cut: 3,
    line_stall: 3,
    redis_restart: 2,
    redis_flush: 2,
    postgres_restart: 2,
    postgres_crash: 1,
    cancel: 3,
    pause: 3,
    resume: 5,
    ring_twice: 2,
}


def draw(seed: int, number: int) -> tuple[Fault, random.Random]:
    """The fault with that number, and the dice for what it does."""
    dice = random.Random(f"{seed}/fault/{number}")
    return dice.choices(list(FAULTS), list(FAULTS.values()))[0], dice
