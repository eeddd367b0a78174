"""A database that was dumped, and restored for another machine: what that runs, and what it leaves.

Real pg_dump and psql. The new machine is a process of its own, with another name, an empty Redis,
and folders under the same paths, as a machine has that was set up after the first one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User

from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.attempts import job_claim
from jobs.services import job_create
from ketter_site.programs import postgres_programs
from portals.models import Portal
from portals.services import credential_create
from tests.factories import PortalFactory, with_database
from tests.jobs.helpers import tree
from tests.jobs.on_machines import HERE
from tests.rig.project import PROJECT

pytestmark = pytest.mark.django_db(transaction=True)

RESTORED = "test_restored_elsewhere"
#: What the new machine's worker does; first a person confirms the new name, if the words say so.
NEW_MACHINE = """
import json, sys, django
django.setup()
from django.conf import settings
from jobs.models import Job
from jobs.queueing.attempts import job_claim
from jobs.tasks import run_job
from portals.endpoints import endpoint_to_test
from portals.errors import PortalError
from portals.machines import machine_rename, machine_seen
from portals.models import Portal
machine_seen(name=settings.KETTER_MACHINE)
confirms, *jobs = sys.argv[1:]
if confirms == "confirmed":
    machine_rename(portal=Portal.objects.get(name="lab"), to=settings.KETTER_MACHINE)
else:
    assert job_claim(worker="w9") is None
for job in jobs:
    run_job(job)
try:
    secret = endpoint_to_test(Portal.objects.get(name="far")).ssh.password
except PortalError as error:
    secret = error.code
found = {str(job.pk): [job.status, job.attempt, job.waits_for] for job in Job.objects.all()}
print(json.dumps({"jobs": found, "secret": secret}))
"""

#: Runs jobs on the new machine, with a changed environment: (confirmed or not, jobs).
NewMachine = Callable[..., dict[str, Any]]


@pytest.fixture
def before(settings: Any, oscar: User, order: dict[str, Any], lab: Portal) -> list[Job]:
    """A move that has begun and one that waits, and a portal with a password."""
    settings.KETTER_MACHINE = HERE
    Portal.objects.update(machine=HERE)
    password = credential_create(name="far", kind="password", secret="correct-horse")
    PortalFactory.create(name="far", kind="ssh", host="far", host_key="key", credential=password)
    jobs = []
    for day in ("day1", "day2"):
        (Path(lab.root_path) / day).mkdir()
        (Path(lab.root_path) / day / "clip").write_bytes(b"clip")
        places = {**order, "source_path": day, "target_path": f"in/{day}"}
        jobs.append(job_create(by=oscar, **places, mode="move"))
    assert job_claim(worker="w1") == jobs[0]
    reaper.give_back(worker="w1", reason="a test")
    return jobs


@pytest.fixture
def new_machine(worker_env: dict[str, str], before: list[Job]) -> Iterator[NewMachine]:
    """Dump the database and restore it under another name; the old one is not touched again."""
    here = worker_env["DATABASE_URL"]
    there = with_database(here, RESTORED)
    env = {**worker_env, "DATABASE_URL": there, "KETTER_MACHINE": "new-1"}
    env["DJANGO_SETTINGS_MODULE"] = "ketter_site.settings"
    programs = postgres_programs()

    def called(argv: list[str], **more: Any) -> str:
        done = subprocess.run(
            argv, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False, **more
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(confirms: str, *jobs: Job, **changed: str) -> dict[str, Any]:
        words = [sys.executable, "-c", NEW_MACHINE, confirms, *(str(job.pk) for job in jobs)]
        said: dict[str, Any] = json.loads(called(words, env={**env, **changed}).splitlines()[-1])
        return said

    with psycopg.connect(here, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {RESTORED}")
        try:
            dump = called([str(programs / "pg_dump"), "--no-owner", "--dbname", here])
            called([str(programs / "psql"), "--quiet", "--dbname", there], input=dump)
            yield run
        finally:
            connection.execute(f"DROP DATABASE {RESTORED} WITH (FORCE)")


def test_a_new_machine_runs_no_job_of_a_restored_database_before_a_person_confirms_its_name(
    new_machine: NewMachine, before: list[Job], lab: Portal, srvtrf: Portal
) -> None:
    begun, waiting = map(str, (job.pk for job in before))
    folders = [Path(lab.root_path), Path(srvtrf.root_path)]
    as_before = [tree(folder) for folder in folders]

    said = new_machine("not yet", *before)

    assert [said["jobs"][job][:2] for job in (begun, waiting)] == [["queued", 1], ["queued", 0]]
    for job in (begun, waiting):
        assert "is on machine “lab-1”, where no worker is alive. If “new-1”" in said["jobs"][job][2]
    assert [tree(folder) for folder in folders] == as_before

    said = new_machine("confirmed", *before)

    assert [said["jobs"][job][:2] for job in (begun, waiting)] == [["done", 2], ["done", 1]]
    assert tree(folders[0]) == {"day1": None, "day2": None}
    assert tree(folders[1])["in/day2/clip"] == b"clip"


def test_a_restored_database_opens_its_secrets_with_the_old_keys_alone(
    new_machine: NewMachine,
) -> None:
    assert new_machine("not yet")["secret"] == "correct-horse"

    other = Fernet.generate_key().decode()
    assert new_machine("not yet", KETTER_FIELD_KEYS=other)["secret"] == "CANNOT_DECRYPT"
