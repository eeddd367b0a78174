"""`/api/jobs/` as automation sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from jobs.models import Job
from jobs.states import Status
from portals.models import Portal
from tests.factories import PortalFactory
from tests.jobs.helpers import LIMITS
from tests.rig.jobs_events import event_add

JOBS = "/api/jobs/"
Api = Callable[..., APIClient]


def test_the_api_launches_a_job_and_shows_its_fields(
    api: Api, oscar: User, body: dict[str, Any]
) -> None:
    answer = api(oscar).post(JOBS, {**body, "mode": "move", "exclude": [".DS_Store"]}, "json")
    assert answer.status_code == 201, answer.data
    said = answer.json()
    assert (said["status"], said["is_live"], said["percent"]) == ("queued", True, 0)
    assert (said["source_portal"], said["target_portal"]) == ("lab", "srvtrf")
    assert (said["mode"], said["exclude"], said["requested_by"]) == ("move", [".DS_Store"], "oscar")
    assert Job.objects.get().pk.hex == said["id"].replace("-", "")


def test_the_api_answers_a_repeated_idempotency_key_with_the_same_job(
    api: Api, oscar: User, body: dict[str, Any]
) -> None:
    client = api(oscar)
    header = {"Idempotency-Key": "night-42"}
    first = client.post(JOBS, body, "json", headers=header).json()
    again = client.post(JOBS, body, "json", headers=header)
    assert again.json()["id"] == first["id"]
    other = client.post(JOBS, {**body, "mode": "move"}, "json", headers=header)
    assert other.status_code == 409
    assert other.json()["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert Job.objects.count() == 1


BAD_BODIES = [
    ({"source_portal": "nowhere"}, "source_portal", "INVALID"),
    ({"source_portal": "a\0b"}, "source_portal", "INVALID"),
    ({"source_portal": "a\ud800"}, "source_portal", "INVALID"),
    ({"source_portal": ["lab"]}, "source_portal", "INVALID"),
    ({"source_path": "../etc"}, "source_path", "PATH_OUTSIDE_ROOT"),
    ({"target_path": "/etc"}, "target_path", "PATH_OUTSIDE_ROOT"),
    ({"target_portal": "lab", "target_path": "day1"}, "target_path", "TARGET_OVERLAPS_SOURCE"),
    ({"target_portal": "lab", "target_path": "day1/x"}, "target_path", "TARGET_OVERLAPS_SOURCE"),
    ({"mode": "teleport"}, "mode", "INVALID"),
    ({"streams": 99}, "streams", "INVALID"),
    ({"include": "*.mov"}, "include", "INVALID"),
    ({"include": [""]}, "include", "INVALID"),
    ({"target_path": "a\0b"}, "target_path", "INVALID"),
    ({"target_path": "a\ud800"}, "target_path", "INVALID"),
    ({"exlude": ["*.tmp"]}, "exlude", "INVALID"),
    ({"idempotency_key": "in the body, not the header"}, "idempotency_key", "INVALID"),
    ({"priority": 1001}, "priority", "INVALID"),
    ({"priority": "high"}, "priority", "INVALID"),
    ({"bandwidth_limit": -1}, "bandwidth_limit", "INVALID"),
    ({"bandwidth_limit": 1 << 60}, "bandwidth_limit", "INVALID"),
    ({"max_tries": 0}, "max_tries", "INVALID"),
    ({"max_tries": 1001}, "max_tries", "INVALID"),
    ({"start_at": "tomorrow"}, "start_at", "INVALID"),
    ({"draft": "perhaps"}, "draft", "INVALID"),
]


@pytest.mark.parametrize(("change", "field", "code"), BAD_BODIES)
def test_the_api_refuses_a_bad_launch_in_the_envelope_and_names_the_field(
    change: dict[str, Any], field: str, code: str, api: Api, oscar: User, body: dict[str, Any]
) -> None:
    sent = json.dumps({**body, **change})  # With escapes: the client could not encode a surrogate.
    answer = api(oscar).post(JOBS, sent, content_type="application/json")
    assert answer.status_code == 400
    said = answer.json()
    assert sorted(said) == ["code", "extra", "message"]
    assert said["code"] == code
    assert said["message"]
    assert list(said["extra"]["fields"]) == [field]
    assert not Job.objects.exists()


def test_the_api_launches_a_job_with_the_limits_of_the_request(
    api: Api, oscar: User, body: dict[str, Any]
) -> None:
    said = api(oscar).post(JOBS, {**body, **LIMITS}, "json").json()
    assert {name: said[name] for name in LIMITS} == LIMITS
    job = Job.objects.get()
    assert {name: getattr(job, name) for name in LIMITS} == LIMITS


def test_the_api_launches_a_scheduled_job_and_a_draft(
    api: Api, oscar: User, body: dict[str, Any]
) -> None:
    client, when = api(oscar), timezone.now() + timedelta(days=1)
    at = client.post(JOBS, {**body, "start_at": when.isoformat()}, "json").json()
    assert (at["status"], at["queued_at"]) == ("scheduled", None)
    assert Job.objects.get(pk=at["id"]).next_run_at == when
    draft = client.post(JOBS, {**body, "draft": True}, "json").json()
    assert (draft["status"], draft["next_run_at"]) == ("draft", None)
    both = client.post(JOBS, {**body, "draft": True, "start_at": when.isoformat()}, "json").json()
    assert both["status"] == "draft"
    started = client.post(f"{JOBS}{both['id']}/resume/").json()
    assert started["status"] == "scheduled"
    assert started["next_run_at"] == at["next_run_at"]


def test_the_api_refuses_a_busy_target_if_the_setting_is_refuse(
    api: Api, oscar: User, body: dict[str, Any], settings: Any
) -> None:
    settings.KETTER_BUSY_TARGET = "refuse"
    client = api(oscar)
    client.post(JOBS, body, "json")
    answer = client.post(JOBS, body, "json")
    assert (answer.status_code, answer.json()["code"]) == (400, "TARGET_BUSY")


def test_the_api_shows_one_job_with_its_plan_and_percentage(
    api: Api, vera: User, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING, plan={"strategy": "zip"}, bytes_total=200, bytes_done=50)
    said = api(vera).get(f"{JOBS}{job.pk}/").json()
    assert said["plan"] == {"strategy": "zip"}
    assert said["percent"] == 25


def test_the_api_says_what_a_job_waits_for_and_until_when(
    api: Api, vera: User, job_in: Callable[..., Job]
) -> None:
    when = timezone.now() + timedelta(minutes=5)
    waits = job_in(Status.QUEUED, waits_for="Waits for job 1234.")
    again = job_in(Status.RETRY_WAIT, next_run_at=when, tries=3, error_code="CONNECTION_LOST")
    client = api(vera)
    assert client.get(f"{JOBS}{waits.pk}/").json()["waits_for"] == "Waits for job 1234."
    said = client.get(f"{JOBS}{again.pk}/").json()
    assert (said["tries"], said["max_tries"], said["error_code"]) == (3, 50, "CONNECTION_LOST")
    assert said["next_run_at"].startswith(when.isoformat()[:19])


def test_the_api_answers_404_in_the_envelope_for_an_unknown_job(api: Api, vera: User) -> None:
    for name in (str(uuid4()), "not-a-uuid"):
        answer = api(vera).get(f"{JOBS}{name}/")
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_the_api_lists_jobs_newest_first_in_pages(
    api: Api, vera: User, job_in: Callable[..., Job]
) -> None:
    jobs = [job_in(Status.DONE) for _ in range(3)]
    said = api(vera).get(JOBS, {"page_size": 2}).json()
    assert said["count"] == 3
    assert [row["id"] for row in said["results"]] == [str(jobs[2].pk), str(jobs[1].pk)]
    assert "plan" not in said["results"][0]


@pytest.mark.parametrize("rows", [1, 20])
def test_the_api_lists_jobs_with_two_queries_however_long_the_list(
    rows: int,
    api: Api,
    alice: User,
    job_in: Callable[..., Job],
    django_assert_num_queries: Any,
) -> None:
    for _ in range(rows):
        job_in(Status.RUNNING)
    client = api(alice)
    with django_assert_num_queries(2):  # How many, and the page.
        assert len(client.get(JOBS).json()["results"]) == rows


def test_the_api_filters_jobs_by_status_mode_portal_time_and_user(
    api: Api, vera: User, job_in: Callable[..., Job]
) -> None:
    here, there = PortalFactory.create(name="here"), PortalFactory.create(name="there")
    done = job_in(Status.DONE, source_portal=here, mode="move")
    failed = job_in(Status.FAILED, target_portal=there)
    job_in(Status.QUEUED)
    client = api(vera)

    def found(query: str) -> set[str]:
        return {row["id"] for row in client.get(f"{JOBS}?{query}").json()["results"]}

    assert found("status=done&status=failed") == {str(done.pk), str(failed.pk)}
    assert found("mode=move") == {str(done.pk)}
    assert found("source_portal=here") == {str(done.pk)}
    assert found("target_portal=there") == found("portal=there") == {str(failed.pk)}
    assert len(found("created_after=2020-01-01T00:00:00Z")) == 3
    assert found("created_before=2020-01-01T00:00:00Z") == set()
    assert found("requested_by=nobody") == set()
    wrong = client.get(f"{JOBS}?status=flying")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "INVALID")


def test_the_api_sends_the_events_of_a_job_by_cursor(
    api: Api, vera: User, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING)
    for number in range(5):
        event_add(job, code="TEST", message=f"Number {number}.", data={"n": number})
    client, url = api(vera), f"{JOBS}{job.pk}/events/"
    first = client.get(url, {"limit": 3}).json()
    assert [event["seq"] for event in first["results"]] == [1, 2, 3]
    assert (first["after"], first["more"], first["is_live"]) == (3, True, True)
    rest = client.get(url, {"after": first["after"]}).json()
    assert [event["data"]["n"] for event in rest["results"]] == [3, 4]
    none = client.get(url, {"after": rest["after"]}).json()
    assert (none["results"], none["after"], none["more"]) == ([], 5, False)
    wrong = client.get(url, {"after": "x"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "INVALID")


def test_the_api_lets_viewers_read_jobs_but_not_launch_one(
    api: Api, vera: User, body: dict[str, Any], job_in: Callable[..., Job]
) -> None:
    client, job = api(vera), job_in(Status.QUEUED)
    assert client.get(JOBS).status_code == 200
    assert client.get(f"{JOBS}{job.pk}/events/").status_code == 200
    answer = client.post(JOBS, body, "json")
    assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED")
    assert Job.objects.get().status == Status.QUEUED


def test_the_api_refuses_the_list_of_jobs_to_anonymous_users(api: Api, db: None) -> None:
    answer = api().get(JOBS)
    assert (answer.status_code, answer.json()["code"]) == (401, "NOT_AUTHENTICATED")


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_the_api_lets_no_user_edit_or_delete_a_job(
    method: str, api: Api, alice: User, job_in: Callable[..., Job]
) -> None:
    url = f"{JOBS}{job_in(Status.DONE).pk}/"
    assert getattr(api(alice), method)(url, {}, "json").status_code == 405


def test_the_api_does_not_delete_a_portal_that_a_job_uses(
    api: Api, alice: User, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING)
    answer = api(alice).delete(f"/api/portals/{job.target_portal.name}/")
    if answer.status_code == 404:
        answer = api(alice).delete(f"/api/portals/{job.target_portal_id}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "PORTAL_IN_USE")
    assert Portal.objects.filter(pk=job.target_portal_id).exists()
