"""Random jobs under random faults, for as long as asked; an oracle looks at each that ended.

python -m tests.faults.soak --minutes 30 --seed 1 [--json FILE]

Ends with 0 if nothing was lost, nothing was corrupt, nothing was left lying
about, no worker ended by itself, and every job ended in one way. The same seed
draws the same jobs and the same faults in the same order; what they hit depends
on the machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.soak_world import World

if TYPE_CHECKING:
    from tests.faults.soak_jobs import Case
    from tests.faults.soak_oracle import Violation

WORKERS, LIVE_CASES = 3, 6
#: Seconds for everything to end, once there are no more faults.
DRAIN_SECONDS = 180.0
#: Seconds after which a case is looked at once more: who was frozen may have come back.
LATER_SECONDS = 10.0
KINDS = ("lost", "corrupt", "debris", "trail", "unexpected", "died")


class Soak:
    """One run; `tally` is what there is to report."""

    def __init__(self, world: World, seed: int, minutes: float, live: int = LIVE_CASES) -> None:
        self._live = live
        self._world, self._seed, self._seconds = world, seed, minutes * 60
        self._cases: list[Case] = []
        self._again: deque[tuple[float, Case]] = deque()
        self._drawn = 0
        self._draws = random.Random(f"{seed}/times")
        self.began = time.monotonic()
        self.violations: list[Violation] = []
        self.faults: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.parcels: Counter[str] = Counter()
        self.cases = self.jobs = self.attempts = self.bytes = 0
        self.processes_left = 0

    def run(self) -> None:
        """Launch and spoil until the time is over, then let everything end."""
        until, fault_at = self.began + self._seconds, self.began + 3
        while time.monotonic() < until:
            self._step()
            while len(self._cases) < self._live_now():
                self._launch()
            if time.monotonic() >= fault_at:
                self._spoil()
                fault_at = time.monotonic() + self._draws.uniform(1, 3)
            time.sleep(0.1)
        self._drain()
        self.processes_left = len(self._world.end_workers())
        self.name_the_dead()
        self._look_for_debris()

    def _live_now(self) -> int:
        """How many jobs at a time: every other half minute one, for the others to help with."""
        return 1 if (time.monotonic() - self.began) % 60 > 30 else self._live

    def _step(self) -> None:
        self._world.tick()
        self._judge_ended()
        while self._again and self._again[0][0] <= time.monotonic():
            self._judge_later(self._again.popleft()[1])

    def _launch(self) -> None:
        from jobs.services import job_create
        from tests.faults import soak_jobs

        self.cases += 1
        case = soak_jobs.make(self._seed, self.cases, self._world.roots)
        order = {**case.order}
        for side in ("source_portal", "target_portal"):
            order[side] = self._world.portals[order[side]]
        for _ in range(case.rivals):
            job = job_create(by=self._world.user, **order)
            case.jobs.append(job.pk)
        self._cases.append(case)

    def _spoil(self) -> None:
        from tests.faults.soak_faults import draw

        self._drawn += 1
        fault, dice = draw(self._seed, self._drawn)
        hit = fault(self._world, dice)
        (self.faults if hit else self.missed)[fault.__name__] += 1
        seconds = time.monotonic() - self.began
        log(f"{seconds:7.1f} s  fault {self._drawn} {fault.__name__}{'' if hit else ' (nothing)'}")

    def _judge_ended(self) -> None:
        from jobs.models import Job
        from jobs.states import FINAL

        wanted = [pk for case in self._cases for pk in case.jobs]
        over = set(Job.objects.filter(pk__in=wanted, status__in=FINAL).values_list("pk", flat=True))
        for case in [case for case in self._cases if over.issuperset(case.jobs)]:
            self._cases.remove(case)
            self._judge(case)
            self._again.append((time.monotonic() + LATER_SECONDS, case))

    def _judge(self, case: Case) -> None:
        from jobs.models import JobEvent, JobParcel
        from jobs.states import Status

        jobs = self._jobs_of(case)
        self._violated(case, jobs)
        for job in jobs:
            self.jobs += 1
            self.attempts += job.attempt
            self.ended[job.status] += 1
            self.bytes += case.bytes if job.status == Status.DONE else 0
        self.events.update(JobEvent.objects.filter(job__in=jobs).values_list("code", flat=True))
        self.parcels.update(JobParcel.objects.filter(job__in=jobs).values_list("kind", flat=True))

    def _judge_later(self, case: Case) -> None:
        """Look once more, then clear the case away."""
        known = {(found.kind, found.message) for found in self.violations}
        self._violated(case, self._jobs_of(case), known)
        for folder in (case.source, case.target):
            shutil.rmtree(folder, ignore_errors=True)

    def _violated(
        self, case: Case, jobs: list[Any], known: set[tuple[str, str]] | None = None
    ) -> None:
        from tests.faults.soak_oracle import judge

        for found in judge(case, jobs):
            if known is None or (found.kind, found.message) not in known:
                when = "" if known is None else "later: "
                self.violations.append(found)
                log(f"VIOLATION {found.kind} case {case.name} ({case.kind}): {when}{found.message}")
                log(found.trail)

    def _jobs_of(self, case: Case) -> list[Any]:
        from jobs.models import Job

        jobs = Job.objects.select_related("source_portal", "target_portal")
        return list(jobs.filter(pk__in=case.jobs).order_by("created_at"))

    def _drain(self) -> None:
        """Let everything end: no more faults, and operators let everything go on."""
        from jobs.errors import JobError
        from jobs.models import Job
        from jobs.services import job_resume
        from jobs.states import Status

        log(f"no more faults; {len(self._cases)} cases are to end")
        self._world.calm()
        until = time.monotonic() + DRAIN_SECONDS
        while (self._cases or self._again) and time.monotonic() < until:
            waits = Job.objects.filter(status__in=[Status.PAUSED, Status.NEEDS_ATTENTION])
            for job in waits:
                try:
                    job_resume(job, by=self._world.user)
                except JobError as refused:
                    log(f"job {job} was not resumed: {refused}")
            self._step()
            time.sleep(0.2)
        for case in self._cases:
            self._judge(case)

    def name_the_dead(self) -> None:
        """A worker that ended though nobody wanted it to is a violation."""
        from tests.faults.soak_oracle import Violation

        for how, said in self._world.died:
            self.violations.append(Violation("died", "-", f"a worker ended by itself: {how}", said))
            log(f"VIOLATION died: {how}\n{said}")

    def _look_for_debris(self) -> None:
        from tests.faults.soak_oracle import Violation, debris

        if self.processes_left:
            message = f"{self.processes_left} processes outlived their workers"
            self.violations.append(Violation("debris", "-", message))
        for path in debris(*self._world.roots.values()):
            self.violations.append(Violation("debris", "-", f"left at the end: {path!r}"))

    def tally(self) -> dict[str, Any]:
        """The report in figures."""
        found = Counter(violation.kind for violation in self.violations)
        return {
            "seed": self._seed,
            "seconds": round(time.monotonic() - self.began),
            "cases": self.cases,
            "jobs": self.jobs,
            "bytes": self.bytes,
            "attempts": self.attempts,
            "ended": dict(sorted(self.ended.items())),
            "faults_total": self.faults.total(),
            "faults": dict(sorted(self.faults.items())),
            "missed": dict(sorted(self.missed.items())),
            "parcels": dict(sorted(self.parcels.items())),
            "events": dict(self.events.most_common()),
            **{kind: found[kind] for kind in KINDS},
            "violations": [violation._asdict() for violation in self.violations],
        }


def markdown(tally: dict[str, Any]) -> str:
    """The report for people."""
    minutes = tally["seconds"] / 60
    rows = [
        ("jobs ended", f"{tally['jobs']} in {tally['attempts']} attempts"),
        ("how", ", ".join(f"{n} {status}" for status, n in tally["ended"].items())),
        ("bytes delivered", f"{tally['bytes']:,}"),
        ("parcels", ", ".join(f"{n} {kind}" for kind, n in tally["parcels"].items())),
        ("faults", f"{tally['faults_total']}"),
        *((f"- {name.replace('_', ' ')}", str(n)) for name, n in tally["faults"].items()),
        *((kind, str(tally[kind])) for kind in KINDS),
    ]
    head = [f"Soak of {minutes:.1f} minutes, seed {tally['seed']}:", "", "| what | how much |"]
    return "\n".join([*head, "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def log(text: str) -> None:
    """Say something at once, also into a pipe."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Run the soak; 0 only if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument(
        "--live", type=int, default=LIVE_CASES, help="jobs at a time, where it is not one"
    )
    # Not TMPDIR, which can be too long for a socket's path.
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where it all happens")
    parser.add_argument("--json", type=Path, help="where the report is written, too")
    asked = parser.parse_args(arguments)
    # Ended by a signal, it still clears away; a shell has its background jobs ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    world = World(asked.workers, asked.folder)
    logging.basicConfig(filename=world.folder / "soak.log", level=logging.WARNING)
    try:
        world.start()
        soak = Soak(world, asked.seed, asked.minutes, asked.live)
        try:
            soak.run()
        finally:
            tally = soak.tally()
            if asked.json:
                asked.json.write_text(json.dumps(tally, indent=1), "utf-8")
            print(markdown(tally))
    finally:
        world.close()
    return 1 if tally["violations"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
