"""Jobs that are run in the test's own process, with a hand in what happens at each point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db.models.functions import Now

from jobs.models import Job
from jobs.queueing.attempts import job_queue_due
from jobs.services import job_create
from jobs.tasks import run_job
from portals.models import Portal
from tests.faults import killpoints
from tests.faults.oracle import Oracle, Surroundings

Deed = Callable[[], object]


@dataclass
class Here:
    """Two portals on this machine, and jobs between them that are run at once."""

    lab: Portal
    srvtrf: Portal
    by: User
    surroundings: Surroundings
    oracles: dict[Job, Oracle] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """Where jobs take their trees from."""
        return Path(self.lab.root_path) / "day1"

    @property
    def target(self) -> Path:
        """Where jobs bring them to."""
        return Path(self.srvtrf.root_path) / "in/day1"

    def launch(self, *, at: str = "", meddle: Deed | None = None, **order: Any) -> Job:
        """Launch a job over what is at the source now; `meddle` is done when it comes `at`."""
        oracle = Oracle(self.source, self.target, self.surroundings)
        if meddle is not None:
            killpoints.DEEDS["meddle"] = lambda _job: meddle()
            order["idempotency_key"] = f"{at}:meddle"
        defaults = {"source_portal": self.lab, "target_portal": self.srvtrf}
        paths = {"source_path": "day1", "target_path": "in/day1"}
        job = job_create(by=self.by, **{**defaults, **paths, **order})
        self.oracles[job] = oracle
        return job

    def run(self, *, at: str = "", meddle: Deed | None = None, **order: Any) -> Job:
        """Launch a job and run one attempt of it."""
        return self.attempt(self.launch(at=at, meddle=meddle, **order))

    def run_without_oracle(self, **order: Any) -> Job:
        """Run a job over a tree that the oracle cannot hold: too deep, or too large."""
        defaults = {"source_portal": self.lab, "target_portal": self.srvtrf}
        paths = {"source_path": "day1", "target_path": "in/day1"}
        return self.attempt(job_create(by=self.by, **{**defaults, **paths, **order}))

    def attempt(self, job: Job) -> Job:
        """Run the next attempt of a job, waiting for nothing."""
        Job.objects.filter(pk=job.pk, status="retry_wait").update(next_run_at=Now())
        while job_queue_due():
            continue
        run_job(str(job.pk))
        job.refresh_from_db()
        return job

    def judge(self, job: Job, **how: Any) -> None:
        """Have the oracle judge a job."""
        self.oracles[job].judge(job, **how)


def failures(job: Job) -> dict[str, str]:
    """What a partial job could not deliver: the code by the path."""
    data = job.events.order_by("-seq")[0].data
    return {failure["path"]: failure["code"] for failure in data.get("failures", ())}
