"""Trying again by itself, and waiting for a person where that would not help."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.db.models.functions import Now

import engine
from engine import errors
from jobs import remedies
from jobs.models import Job
from jobs.queueing.attempts import job_claim, job_queue_due, job_wait, retry_seconds
from jobs.running import shutdown
from jobs.running.observer import JobObserver
from jobs.services import job_create, job_resume
from jobs.states import Status
from jobs.tasks import run_job
from portals.errors import PortalError
from portals.models import Credential, Portal
from portals.services import (
    credential_create,
    credential_set_secret,
    portal_pin_host_key,
    portal_update,
)
from tests.jobs.helpers import MEGABYTE, ours, tree
from tests.rig.events import codes
from tests.rig.relay import Relay, Way
from tests.rig.sshd import Sshd, make_key

JobIn = Callable[..., Job]


def every(base: type[Any]) -> Iterator[type[Any]]:
    """A class and all that are derived from it."""
    yield base
    for child in base.__subclasses__():
        yield from every(child)


NEEDS_PERSON = sorted(
    {kind.code for base in (errors.EngineError, PortalError) for kind in every(base)
     if kind.retry == errors.NEEDS_PERSON}
)  # fmt: skip


# --- How long, how often ------------------------------------------------------


def test_the_wait_before_a_retry_doubles_up_to_a_limit_and_is_random(settings: Any) -> None:
    settings.KETTER_RETRY_SECONDS, settings.KETTER_RETRY_MAX_SECONDS = 5, 600
    for tries in (1, 2, 3, 7, 8, 9, 50, 1000, 10**9):
        longest = min(600, 5 * 2 ** min(tries - 1, 32))
        waits = [retry_seconds(tries) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(set(waits)) > 100
        assert max(waits) - min(waits) > longest / 4  # Spread, so that not all come back at once.


def fail(job: Job, *, advanced: bool = False) -> Job:
    """Have an attempt of a job fail with an error that may pass."""
    code, message = "CONNECTION_LOST", "The line broke."
    return job_wait(job, code=code, message=message, advanced=advanced)


def try_again(job: Job) -> Job:
    """Have the time of a job's next try come, and the try begin."""
    Job.objects.filter(pk=job.pk).update(next_run_at=Now())
    assert job_queue_due() == job
    return job_claim(worker="w")


def test_a_failed_attempt_records_the_next_try_in_the_job_and_in_an_event(job_in: JobIn) -> None:
    job = fail(job_in(Status.RUNNING, tries=2))
    job.refresh_from_db()
    assert (job.status, job.tries, job.error_code) == (Status.RETRY_WAIT, 3, "CONNECTION_LOST")
    event = job.events.get()
    assert (event.level, event.data["tries"]) == ("warning", 3)
    assert "Failure 3 of 50; next try in" in event.message
    wait = (job.next_run_at - event.at).total_seconds()
    assert wait == pytest.approx(event.data["wait_seconds"], abs=1)


def test_a_job_needs_attention_after_its_last_try(job_in: JobIn, oscar: User) -> None:
    job = job_in(Status.RUNNING, max_tries=3)
    for tries in (1, 2):
        job = fail(job)
        assert (job.status, job.tries) == (Status.RETRY_WAIT, tries)
        job = try_again(job)
    job = fail(job)
    assert (job.status, job.tries, job.next_run_at) == (Status.NEEDS_ATTENTION, 3, None)
    assert job.error_code == "CONNECTION_LOST"
    assert "3 times in a row" in job.error_message
    assert "resume" in job.error_message
    job = job_resume(job, by=oscar)
    assert (job.status, job.tries) == (Status.QUEUED, 0)


def test_a_job_with_max_tries_1_needs_attention_after_one_failure(job_in: JobIn) -> None:
    for advanced in (True, False):
        job = fail(job_in(Status.RUNNING, max_tries=1), advanced=advanced)
        assert job.status == Status.NEEDS_ATTENTION


def test_a_failed_attempt_that_made_progress_resets_tries_and_losses(job_in: JobIn) -> None:
    job = fail(job_in(Status.RUNNING, tries=49, losses=5), advanced=True)
    assert (job.status, job.tries, job.losses) == (Status.RETRY_WAIT, 1, 0)


@pytest.mark.parametrize(
    ("before", "held", "done", "advanced"),
    [
        (None, 0, 5, True),
        (None, 0, 0, False),
        (None, 7, 7, False),
        (0, 7, 9, True),
        (7, 7, 9, False),  # What the last attempt brought did not stay; nor will this.
        (7, 8, 9, True),
    ],
)
def test_an_attempt_counts_as_progress_only_if_the_data_of_the_last_one_has_stayed(
    before: int | None, held: int, done: int, advanced: bool, job_in: JobIn
) -> None:
    plan = None if before is None else {"bytes_resumed": before}
    observer = JobObserver(job_in(Status.RUNNING, plan=plan))
    assert not observer.advanced
    observer.phase(engine.Phase.SCAN)
    observer.progress(engine.Progress(bytes_done=held, bytes_total=10))
    observer.phase(engine.Phase.TRANSFER)
    observer.progress(engine.Progress(bytes_done=done, bytes_total=10))
    assert observer.advanced == advanced


# --- A person -----------------------------------------------------------------


def test_credential_host_key_space_and_decryption_errors_need_a_person() -> None:
    assert {"AUTH_FAILED", "HOST_KEY_CHANGED", "NO_SPACE", "CANNOT_DECRYPT"} <= set(NEEDS_PERSON)


@pytest.mark.parametrize("code", sorted({*NEEDS_PERSON} - {"PORTAL_ERROR"}))
def test_every_error_that_needs_a_person_has_a_remedy_of_its_own(code: str) -> None:
    remedy = remedies.remedy_for(code)
    assert remedy != remedies.remedy_for("NEVER_HEARD_OF")
    assert remedy.endswith("resume the job.")


@pytest.mark.parametrize(
    "kind", [kind for base in (errors.EngineError, PortalError) for kind in every(base)]
)
def test_every_error_moves_the_job_to_the_status_of_its_retry_class(
    kind: type[Any], job_in: JobIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    if issubclass(kind, errors.Cancelled | errors.Replaced):
        return

    def run(*_: Any) -> engine.Report:
        raise kind("It went wrong.")

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(shutdown, "_requested", False)
    job = job_in(Status.QUEUED)
    run_job("")
    job.refresh_from_db()
    expected = {
        errors.TRANSIENT: Status.RETRY_WAIT,
        errors.NEEDS_PERSON: Status.NEEDS_ATTENTION,
        errors.PERMANENT: Status.FAILED,
    }
    assert job.status == expected[kind.retry]
    assert job.error_code == kind.code
    assert job.error_message.startswith("It went wrong.")
    assert (job.next_run_at is not None) == (job.status == Status.RETRY_WAIT)
    if job.status == Status.NEEDS_ATTENTION:
        assert job.error_message.endswith(remedies.remedy_for(kind.code))


# --- After the fix it goes on from where it stopped -----------------------------

SIZE = 24 * MEGABYTE


@pytest.fixture
def source(lab: Portal) -> Path:
    """A tree of files that are sent one by one."""
    folder = Path(lab.root_path) / "day1"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.mov").write_bytes(os.urandom(SIZE // 12))
    return folder


@pytest.fixture
def begun(
    oscar: User, lab: Portal, far: Portal, source: Path, line: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], Job]:  # fmt: skip
    """A job that brought a good part, then lost its line, and tries again now."""

    def begin() -> Job:
        line.rate = 0
        progress = JobObserver.progress

        def until_half(observer: JobObserver, news: engine.Progress) -> None:
            progress(observer, news)
            if news.bytes_done > SIZE * 3 // 4:
                raise engine.ConnectionLost("The line broke.")
            line.rate = 16 * MEGABYTE

        places = {"source_portal": lab, "source_path": "day1", "target_portal": far}
        job = job_create(by=oscar, target_path="in", **places)
        with monkeypatch.context() as broken:
            broken.setattr(JobObserver, "progress", until_half)
            run_job("")
        job.refresh_from_db()
        assert (job.status, job.error_code) == (Status.RETRY_WAIT, "CONNECTION_LOST")
        line.rate = 0
        job_resume(job, by=oscar)
        return job

    return begin


def assert_goes_on(job: Job, oscar: User, far: Portal, source: Path, line: Relay) -> None:
    """Resume a job after the fix: it ends done, and sends only the missing data."""
    before = line.passed[Way.UP]
    job_resume(job, by=oscar)
    run_job("")
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.DONE, "")
    assert tree(Path(far.root_path) / "in") == tree(source)
    assert ours(Path(far.root_path)) == []
    assert job.plan["bytes_resumed"] > SIZE // 4
    assert line.passed[Way.UP] - before < SIZE - job.plan["bytes_resumed"] + MEGABYTE


def assert_waits_for_a_person(job: Job, code: str, words: str) -> None:
    """Have a job tried that cannot go on: it says what to do and does not try again."""
    run_job("")
    job.refresh_from_db()
    assert (job.status, job.error_code, job.next_run_at) == (Status.NEEDS_ATTENTION, code, None)
    assert words in job.error_message
    assert job.events.last().level == "error"
    assert job_queue_due() is None


@pytest.mark.slow
@pytest.mark.parametrize("what", ["key", "user name"])
def test_a_job_resumes_where_it_stopped_after_credential_or_user_name_is_corrected(
    what: str,
    begun: Callable[[], Job],
    oscar: User,
    sshd: Sshd,
    far: Portal,
    source: Path,
    line: Relay,
    tmp_path: Path,
) -> None:
    job, right = begun(), far.username
    if what == "key":
        wrong = make_key(tmp_path / "wrong").read_text()
        credential_set_secret(far.credential, secret=wrong)
    else:
        portal_update(far, username="nobody-here")
    assert_waits_for_a_person(job, "AUTH_FAILED", "Correct the portal's user name or credential")
    credential_set_secret(far.credential, secret=sshd.identity_file.read_text())
    portal_update(far, username=right)
    assert_goes_on(job, oscar, far, source, line)


def test_a_job_ends_done_after_a_user_name_wrong_from_the_start_is_corrected(
    oscar: User, lab: Portal, far: Portal, source: Path, line: Relay
) -> None:
    right, line.rate = far.username, 0
    portal_update(far, username="nobody-here")
    places = {"source_portal": lab, "source_path": "day1", "target_portal": far}
    job = job_create(by=oscar, target_path="in", **places)
    assert_waits_for_a_person(job, "AUTH_FAILED", "Correct the portal's user name")
    portal_update(far, username=right)
    job_resume(job, by=oscar)
    run_job("")
    job.refresh_from_db()
    assert job.status == Status.DONE, job.error_message


@pytest.mark.slow
def test_a_job_resumes_where_it_stopped_after_the_host_key_is_pinned_again(
    begun: Callable[[], Job], oscar: User, far: Portal, source: Path, line: Relay, tmp_path: Path
) -> None:
    job, right = begun(), far.host_key
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    portal_pin_host_key(far, line=other)
    assert_waits_for_a_person(job, "HOST_KEY_CHANGED", "pin it, then resume")
    portal_update(far, host_key="")
    job_resume(job, by=oscar)
    assert_waits_for_a_person(job, "HOST_KEY_UNKNOWN", "pin it, then resume")
    portal_pin_host_key(far, line=right)
    assert_goes_on(job, oscar, far, source, line)


@pytest.mark.slow
def test_a_job_resumes_where_it_stopped_after_portal_and_secret_are_usable_again(
    begun: Callable[[], Job], oscar: User, sshd: Sshd, far: Portal, source: Path, line: Relay
) -> None:
    job = begun()
    portal_update(far, state="disabled")
    assert_waits_for_a_person(job, "PORTAL_DISABLED", "Enable the portal")
    portal_update(far, state="active")
    foreign = Fernet(Fernet.generate_key()).encrypt(b"of another installation").decode()
    Credential.objects.filter(pk=far.credential_id).update(secret=foreign)
    job_resume(job, by=oscar)
    assert_waits_for_a_person(job, "CANNOT_DECRYPT", "Enter the credential's secret again")
    credential_set_secret(far.credential, secret=sshd.identity_file.read_text())
    assert_goes_on(job, oscar, far, source, line)


@pytest.mark.slow
def test_a_job_asks_before_the_credential_of_a_new_host_is_given_to_the_old_one(
    begun: Callable[[], Job], oscar: User, far: Portal, source: Path, line: Relay
) -> None:
    job, port, old = begun(), far.port, far.credential
    new = credential_create(name="of-the-new-host", kind="password", secret="swordfish")
    portal_update(far, port=1, credential=new)
    assert_waits_for_a_person(job, "PORTAL_MOVED", "Cancel the job and launch it again")

    portal_update(far, port=port, credential=old, host_key=job.frozen["target"]["host_key"])
    assert_goes_on(job, oscar, far, source, line)


@pytest.mark.slow
def test_a_job_resumes_at_its_original_target_after_its_portal_was_moved(
    begun: Callable[[], Job], oscar: User, far: Portal, source: Path, line: Relay, tmp_path: Path
) -> None:
    job, there = begun(), Path(far.root_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    portal_update(far, root_path=str(elsewhere))
    run_job("")
    job.refresh_from_db()
    assert job.status == Status.DONE, job.error_message
    assert tree(there / "in") == tree(source)
    assert tree(elsewhere) == {}
    assert codes(job)[-1] == "DONE"
