"""How long it takes until a job goes on when something dies, with the settings as they come.

python -m tests.faults.recovery [--only kill_horse,kill_worker] [--json FILE]

Prints a table for docs/reliability.md. One job runs from this machine to a host
behind SSH, slowly; what is measured is the time from the fault to the next
attempt's start, or, where the attempt itself goes on, to its next sign of life.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import soak_world
from tests.faults.soak_world import Slot, World, send

if TYPE_CHECKING:
    from jobs.models import Job

MIB = 1 << 20
#: As settings.py has them; the soak's are short.
DEFAULTS = {
    "KETTER_LEASE_SECONDS": "60",
    "KETTER_REAPER_SECONDS": "15",
    "KETTER_RETRY_SECONDS": "5",
    "KETTER_RETRY_MAX_SECONDS": "600",
    "KETTER_SPREAD_BYTES": str(4 << 30),
}
PATIENCE = 120.0
#: Faults that strike a helper, to be measured apart from others, and how there is one.
HELPED = ("kill_helper", "kill_helpers_worker")
SPREAD = {"KETTER_SPREAD_BYTES": "1"}

#: Does something to a world in which a job runs; waits until the job goes on.
Fault = Callable[[World, "Job"], None]


def main(arguments: list[str]) -> int:
    """Measure what was asked for, each in turn on a job of its own."""
    usual = [name for name in FAULTS if name not in HELPED]
    parser = argparse.ArgumentParser(prog="python -m tests.faults.recovery")
    parser.add_argument("--only", default=",".join(usual), help="which, by comma")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    soak_world.SHORT.update(DEFAULTS)
    if {*names} & {*HELPED}:
        soak_world.SHORT.update(SPREAD)
    world = World(2, options.folder)
    found: dict[str, float] = {}
    try:
        world.start()
        for name in names:
            found[name] = measure(world, name)
            print(f"| {name} | {FAULTS[name][0]} | {found[name]:.1f} s |", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))
    finally:
        world.close()
    return 0


def measure(world: World, name: str) -> float:
    """Seconds from one fault until its job goes on."""
    job = launch(world, name)
    wait(world, lambda: running(job) and job.bytes_done > MIB)
    if name in HELPED:
        wait(world, lambda: helper(world, job))
    began = time.monotonic()
    FAULTS[name][1](world, job)
    seconds = time.monotonic() - began
    world.calm()
    end(world, job)
    return seconds


def launch(world: World, name: str) -> Job:
    """A job that would last for minutes."""
    from jobs.services import job_create

    source = world.roots["lab"] / name
    source.mkdir()
    for number in range(40):
        (source / f"{number}.mov").write_bytes(random.Random(number).randbytes(8 * MIB))
    return job_create(
        by=world.user,
        source_portal=world.portals["lab"],
        source_path=name,
        target_portal=world.portals["far"],
        target_path=name,
        bandwidth_limit=2 * MIB,
    )


def end(world: World, job: Job) -> None:
    """Have nothing of it when the next one is measured."""
    from jobs.errors import JobError
    from jobs.services import job_cancel
    from jobs.states import FINAL

    job.refresh_from_db()
    if job.status not in FINAL:
        try:
            job_cancel(job, by=world.user)
        except JobError:
            job.refresh_from_db()
    wait(world, lambda: fresh(job).status in FINAL)


def wait(world: World, true: Callable[[], object]) -> None:
    """Wait until something is true; workers that ended are started again meanwhile."""
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            raise TimeoutError("it did not happen in two minutes")
        world.tick()
        time.sleep(0.02)


def fresh(job: Job) -> Job:
    """The job as the database has it now."""
    job.refresh_from_db()
    return job


def running(job: Job) -> bool:
    """Whether an attempt is under way."""
    return fresh(job).status == "running"


def next_attempt(world: World, job: Job) -> None:
    """Wait for the next attempt."""
    attempt = job.attempt
    wait(world, lambda: running(job) and job.attempt > attempt)


def sign_of_life(world: World, job: Job) -> None:
    """Wait until the attempt under way has written something new."""
    seen = fresh(job).bytes_done
    wait(world, lambda: fresh(job).bytes_done > seen)


def busy(world: World) -> Slot:
    """The worker that runs the job."""
    return next(slot for slot in world.slots if slot.horse())


def helper(world: World, job: Job) -> Slot | None:
    """The worker that carries parcels for another one, if there is one by now."""
    taken = set(job.leases.filter(state="taken").values_list("worker", flat=True))
    found = [
        slot for slot in world.slots if slot.horse() and str(slot.process.pid) in " ".join(taken)
    ]
    return found[0] if found else None


def kill_helper(world: World, job: Job) -> None:
    """The process of a worker that helps; measured until its parcels are another's."""
    slot = helper(world, job)
    assert slot
    send(slot.horse(), signal.SIGKILL)
    wait(world, lambda: job.events.filter(code="HELPER_LOST").exists())


def kill_helpers_worker(world: World, job: Job) -> None:
    """The whole worker that helps; measured until its parcels are another's."""
    slot = helper(world, job)
    assert slot
    slot.expected = True
    slot.send(signal.SIGKILL, slot.horse())
    wait(world, lambda: job.events.filter(code="HELPER_LOST").exists())


def kill_horse(world: World, job: Job) -> None:
    """The process that runs the job."""
    send(busy(world).horse(), signal.SIGKILL)
    next_attempt(world, job)


def kill_worker(world: World, job: Job) -> None:
    """The worker and the process that runs the job."""
    slot = busy(world)
    slot.expected = True
    slot.send(signal.SIGKILL, slot.horse())
    next_attempt(world, job)


def kill_parent(world: World, job: Job) -> None:
    """The worker alone."""
    slot = busy(world)
    slot.expected = True
    slot.send(signal.SIGKILL)
    next_attempt(world, job)


def tell_to_end(world: World, job: Job) -> None:
    """A worker is told to end."""
    slot = busy(world)
    slot.expected = True
    slot.send(signal.SIGTERM)
    next_attempt(world, job)


def freeze(world: World, job: Job) -> None:
    """A worker and all it runs stand still."""
    slot = busy(world)
    pids = [slot.process.pid if slot.process else 0, slot.horse(), *slot.agents()]
    for pid in pids:
        send(pid, signal.SIGSTOP)

    def thaw() -> None:
        for pid in pids:
            send(pid, signal.SIGCONT)

    world.later(PATIENCE, thaw)
    next_attempt(world, job)


def kill_agent(world: World, job: Job) -> None:
    """The agent at the source."""
    send(busy(world).agents()[1], signal.SIGKILL)
    next_attempt(world, job)


def kill_sessions(world: World, job: Job) -> None:
    """Every session at the far host."""
    world.far.kill_sessions()
    next_attempt(world, job)


def blackhole(world: World, job: Job) -> None:
    """The line lets nothing through; measured until the attempt has ended."""
    world.line.stalled = True
    try:
        wait(world, lambda: fresh(job).status != "running")
    finally:
        world.line.stalled = False


def restart_redis(world: World, job: Job) -> None:
    """Redis dies with the wake-up of a queued job; measured from its return, with idle workers."""
    assert world.valkey
    for slot in world.slots:
        slot.expected, slot.start_at = True, time.monotonic() + PATIENCE
        slot.send(signal.SIGTERM)
    wait(world, lambda: not running(job))
    world.valkey.process.kill()
    world.valkey.process.wait()
    for slot in world.slots:
        slot.start_at = 0.0
    world.start_valkey()
    next_attempt(world, job)


def restart_postgres(world: World, job: Job) -> None:
    """Postgres is restarted; measured to the attempt's next sign of life."""
    from django.db import connections

    assert world.postgres
    connections.close_all()
    world.postgres.process.send_signal(signal.SIGINT)
    world.postgres.process.wait()
    world.start_postgres()
    sign_of_life(world, job)


def cancel(world: World, job: Job) -> None:
    """An operator cancels; measured to the end."""
    from jobs.services import job_cancel

    job_cancel(job, by=world.user)
    wait(world, lambda: fresh(job).status == "cancelled")


def cancel_at_a_dead_host(world: World, job: Job) -> None:
    """An operator cancels, and the line lets nothing through any more; measured to the end."""
    from jobs.services import job_cancel

    world.line.stalled = True
    try:
        job_cancel(job, by=world.user)
        wait(world, lambda: fresh(job).status == "cancelled")
    finally:
        world.line.stalled = False


def pause(world: World, job: Job) -> None:
    """An operator pauses; measured until nobody works at it."""
    from jobs.services import job_pause

    job_pause(job, by=world.user)
    wait(world, lambda: fresh(job).status == "paused")


def _named() -> Iterator[tuple[str, tuple[str, Fault]]]:
    for fault in (
        kill_horse, kill_worker, kill_parent, tell_to_end, freeze, kill_agent, kill_sessions,
        blackhole, restart_redis, restart_postgres, cancel, cancel_at_a_dead_host, pause,
        kill_helper, kill_helpers_worker,
    ):  # fmt: skip
        yield fault.__name__, ((fault.__doc__ or "").strip().rstrip("."), fault)


FAULTS: dict[str, tuple[str, Fault]] = dict(_named())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
