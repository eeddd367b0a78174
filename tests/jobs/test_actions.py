"""Cancelling, pausing, resuming, relaunching and retrying, through `/api/jobs/` and the admin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from jobs.models import Job
from jobs.services import job_create
from jobs.states import PAUSABLE, STARTABLE, Status
from tests.jobs.helpers import page_of

JOBS, ADD, LIST = "/api/jobs/", "/admin/jobs/job/add/", "/admin/jobs/job/"
JobIn = Callable[..., Job]
Api = Callable[..., APIClient]
#: Each action, and a status in which a job allows it.
ACTIONS = [
    ("cancel", Status.QUEUED),
    ("pause", Status.RUNNING),
    ("resume", Status.PAUSED),
    ("relaunch", Status.CANCELLED),
    ("retry_failed", Status.PARTIAL),
]


def api_url(job: Job, verb: str) -> str:
    """The address of an action in the API."""
    return f"{JOBS}{job.pk}/{verb.replace('_', '-')}/"


def admin_url(job: Job, verb: str) -> str:
    """The address of an action's button in the admin."""
    return f"{LIST}{job.pk}/{verb}/"


@pytest.mark.fast
@pytest.mark.parametrize(("verb", "status"), ACTIONS)
def test_a_get_of_an_action_answers_405_and_changes_nothing(
    verb: str,
    status: Status,
    api: Api,
    at_admin: Callable[..., Client],
    oscar: User,
    job_in: JobIn,
) -> None:
    job = job_in(status)
    for client, url in (
        (api(oscar), api_url(job, verb)),
        (at_admin(oscar), admin_url(job, verb)),
    ):
        assert client.get(url).status_code == 405
        assert Job.objects.get().status == status
        assert not job.events.exists()


# --- The API ------------------------------------------------------------------


@pytest.mark.fast
def test_the_api_cancels_only_a_live_job_and_relaunches_only_an_ended_one(
    api: Api, oscar: User, job_in: JobIn
) -> None:
    client, job = api(oscar), job_in(Status.QUEUED)
    live = client.post(f"{JOBS}{job.pk}/relaunch/")
    assert (live.status_code, live.json()["code"]) == (409, "JOB_NOT_ENDED")
    cancelled = client.post(f"{JOBS}{job.pk}/cancel/")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    ended = client.post(f"{JOBS}{job.pk}/cancel/")
    assert (ended.status_code, ended.json()["code"]) == (409, "JOB_HAS_ENDED")
    again = client.post(f"{JOBS}{job.pk}/relaunch/")
    assert (again.status_code, again.json()["relaunched_from"]) == (201, str(job.pk))


@pytest.mark.parametrize("status", list(Status))
def test_the_api_pauses_and_resumes_only_jobs_whose_status_allows_it(
    status: Status, api: Api, oscar: User, job_in: JobIn
) -> None:
    client = api(oscar)
    for verb, can, code in (
        ("pause", PAUSABLE, "NOT_PAUSABLE"),
        ("resume", STARTABLE, "NOT_STARTABLE"),
    ):
        job = job_in(status)
        answer = client.post(f"{JOBS}{job.pk}/{verb}/")
        said = answer.json()
        if status in can:
            assert answer.status_code == 202
            assert said["status"] == Job.objects.get(pk=job.pk).status
        else:
            assert (answer.status_code, said["code"]) == (409, code)
            assert Job.objects.get(pk=job.pk).status == status


def test_the_api_shows_the_pause_request_of_a_running_job(
    api: Api, oscar: User, job_in: JobIn
) -> None:
    said = api(oscar).post(f"{JOBS}{job_in(Status.RUNNING).pk}/pause/").json()
    assert said["status"] == "running"
    assert said["pause_requested_at"]


def test_the_api_retries_the_failed_files_of_a_partial_job_only(
    api: Api, oscar: User, job_in: JobIn
) -> None:
    job = job_in(Status.PARTIAL)
    answer = api(oscar).post(f"{JOBS}{job.pk}/retry-failed/")
    assert (answer.status_code, answer.json()["relaunched_from"]) == (201, str(job.pk))
    answer = api(oscar).post(f"{JOBS}{job_in(Status.DONE).pk}/retry-failed/")
    assert (answer.status_code, answer.json()["code"]) == (409, "JOB_NOT_PARTIAL")


@pytest.mark.fast
@pytest.mark.parametrize(("verb", "status"), ACTIONS)
def test_the_api_refuses_every_action_to_viewers_and_anonymous_users(
    verb: str, status: Status, api: Api, vera: User, job_in: JobIn
) -> None:
    job = job_in(status)
    for user, refusal in ((vera, (403, "PERMISSION_DENIED")), (None, (401, "NOT_AUTHENTICATED"))):
        answer = api(user).post(api_url(job, verb))
        assert (answer.status_code, answer.json()["code"]) == refusal
    assert Job.objects.get().status == status
    assert not job.events.exists()


# --- The admin ------------------------------------------------------------------


@pytest.mark.fast
@pytest.mark.parametrize(
    ("verb", "before", "attempt", "after"),
    [
        ("cancel", Status.QUEUED, 0, Status.CANCELLED),
        ("pause", Status.QUEUED, 1, Status.PAUSED),
        ("resume", Status.PAUSED, 1, Status.QUEUED),
    ],
)
def test_an_operator_cancels_pauses_or_resumes_a_job_on_its_admin_page(
    verb: str,
    before: Status,
    attempt: int,
    after: Status,
    at_admin: Callable[..., Client],
    oscar: User,
    job_in: JobIn,
) -> None:
    job, client = job_in(before, attempt=attempt), at_admin(oscar)
    assert admin_url(job, verb) in client.get(page_of(job)).content.decode()
    answer = client.post(admin_url(job, verb))
    assert answer["Location"] == page_of(job)
    assert Job.objects.get(pk=job.pk).status == after


@pytest.mark.fast
@pytest.mark.parametrize(
    ("verb", "status", "button"),
    [
        ("relaunch", Status.CANCELLED, "Relaunch"),
        ("retry_failed", Status.PARTIAL, "Retry what failed"),
    ],
)
def test_an_operator_relaunches_or_retries_a_job_on_its_admin_page(
    verb: str,
    status: Status,
    button: str,
    at_admin: Callable[..., Client],
    oscar: User,
    job_in: JobIn,
) -> None:
    job, client = job_in(status), at_admin(oscar)
    page = client.get(page_of(job)).content.decode()
    assert admin_url(job, verb) in page
    assert button in page
    answer = client.post(admin_url(job, verb))
    assert answer["Location"] == page_of(Job.objects.get(relaunched_from=job))
    assert Job.objects.get(pk=job.pk).status == status


@pytest.mark.parametrize("status", list(Status))
def test_the_admin_page_of_a_job_offers_only_the_actions_that_its_status_allows(
    status: Status, at_admin: Callable[..., Client], oscar: User, job_in: JobIn
) -> None:
    job = job_in(status)
    page = at_admin(oscar).get(page_of(job)).content.decode()
    offered = {
        "pause": status in PAUSABLE,
        "resume": status in STARTABLE,
        "cancel": job.is_live,
        "relaunch": not job.is_live,
        "retry_failed": status is Status.PARTIAL,
    }
    assert {verb: f"/{job.pk}/{verb}/" in page for verb in offered} == offered


@pytest.mark.fast
@pytest.mark.parametrize(
    ("verb", "before", "sentence", "refusal", "after", "new"),
    [
        (
            "cancel",
            [Status.QUEUED, Status.DONE],
            "1 job is being cancelled.",
            "nothing left to cancel",
            [Status.CANCELLED, Status.DONE],
            0,
        ),
        (
            "pause",
            [Status.QUEUED, Status.DONE, Status.DRAFT],
            "1 job is being paused.",
            "to try again can be paused",
            [Status.PAUSED, Status.DONE, Status.DRAFT],
            0,
        ),
        (
            "resume",
            [Status.PAUSED, Status.DONE, Status.DRAFT],
            "2 jobs were started or resumed.",
            "cannot be started or resumed",
            [Status.QUEUED, Status.DONE, Status.QUEUED],
            0,
        ),
        (
            "relaunch",
            [Status.CANCELLED, Status.DONE, Status.QUEUED],
            "2 jobs were relaunched.",
            "has not ended yet",
            [Status.CANCELLED, Status.DONE, Status.QUEUED],
            2,
        ),
    ],
    ids=["cancel", "pause", "resume", "relaunch"],
)
def test_an_action_on_several_jobs_in_the_admin_list_changes_those_that_allow_it(
    verb: str,
    before: list[Status],
    sentence: str,
    refusal: str,
    after: list[Status],
    new: int,
    at_admin: Callable[..., Client],
    oscar: User,
    job_in: JobIn,
) -> None:
    jobs = [job_in(status) for status in before]
    chosen = {"action": f"{verb}_selected", "_selected_action": [str(job.pk) for job in jobs]}
    page = at_admin(oscar).post(LIST, chosen, follow=True).content.decode()
    assert sentence in page
    assert refusal in page
    assert [Job.objects.get(pk=job.pk).status for job in jobs] == after
    assert Job.objects.filter(relaunched_from__in=jobs).count() == new
    assert Job.objects.count() == len(jobs) + new


@pytest.mark.fast
@pytest.mark.parametrize(("verb", "status"), ACTIONS)
def test_a_viewer_sees_a_job_in_the_admin_but_can_neither_launch_nor_change_one(
    verb: str, status: Status, at_admin: Callable[..., Client], vera: User, job_in: JobIn
) -> None:
    job, client = job_in(status), at_admin(vera)
    page = client.get(page_of(job))
    assert page.status_code == 200
    assert f"/{verb}/" not in page.content.decode()
    assert client.get(ADD).status_code == 403
    assert client.post(admin_url(job, verb)).status_code == 403
    client.post(LIST, {"action": f"{verb}_selected", "_selected_action": [str(job.pk)]})
    job = Job.objects.get()
    assert (job.status, job.pause_requested_at, job.cancel_requested_at) == (status, None, None)


def test_the_admin_says_why_a_draft_to_a_busy_target_cannot_start(
    at_admin: Callable[..., Client], oscar: User, order: dict[str, Any], settings: Any
) -> None:
    settings.KETTER_BUSY_TARGET = "refuse"
    draft = job_create(by=oscar, draft=True, **order)
    other = job_create(by=oscar, **order)
    page = at_admin(oscar).post(f"{LIST}{draft.pk}/resume/", follow=True).content.decode()
    assert f"Job {other} writes to the same place" in page
