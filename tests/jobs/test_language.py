"""Events are stored in the installation's language, whichever the user who asks reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.translation import trans_real
from rest_framework.test import APIClient

from jobs.models import Job
from jobs.states import Status
from tests.factories import PortalFactory

pytestmark = pytest.mark.django_db

JOBS = "/api/jobs/"
Post = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text names the language into which it is translated."""
    language = trans_real.DjangoTranslation.language
    named = lambda catalogue, text: f"<{language(catalogue)}> {text}"  # noqa: E731
    monkeypatch.setattr(trans_real.DjangoTranslation, "gettext", named)


@pytest.fixture
def post(oscar: User, api: Callable[[User | None], APIClient]) -> Post:
    """What an operator's browser posts who reads Portuguese."""

    def send(path: str, **body: Any) -> dict[str, Any]:
        client = api(oscar)
        answer = client.post(JOBS + path, body, format="json", HTTP_ACCEPT_LANGUAGE="pt-br")
        said: dict[str, Any] = answer.json()
        return said

    return send


def last_message(job: Job) -> str:
    """The text of a job's last event."""
    return job.events.order_by("-seq")[0].message


@pytest.mark.parametrize(
    ("status", "verb", "fields", "said"),
    [
        (Status.QUEUED, "cancel", {}, "oscar cancelled"),
        (Status.RUNNING, "cancel", {}, "oscar cancelled"),
        (Status.PAUSED, "cancel", {"attempt": 1}, "oscar cancelled"),
        (Status.QUEUED, "pause", {}, "oscar paused"),
        (Status.RUNNING, "pause", {}, "oscar paused"),
        (Status.PAUSED, "resume", {}, "oscar started"),
        (Status.PAUSED, "resume", {"attempt": 1}, "oscar resumed"),
        (Status.DRAFT, "resume", {}, "oscar submitted"),
    ],
)
def test_events_of_a_user_are_stored_in_the_language_of_the_installation(
    job_in: Callable[..., Job],
    post: Post,
    status: Status,
    verb: str,
    fields: dict[str, Any],
    said: str,
) -> None:
    if status is Status.DRAFT:
        fields = {"next_run_at": timezone.now() + timedelta(hours=1)}
    job = job_in(status, **fields)
    post(f"{job.pk}/{verb}/")
    assert last_message(job).startswith(f"<en> {said}")


@pytest.mark.parametrize("how", [{}, {"draft": True}, {"start_at": "2999-01-01T00:00:00Z"}])
def test_a_launch_is_stored_in_english(post: Post, how: dict[str, Any]) -> None:
    portals = {
        "source_portal": PortalFactory(root_path="/lab").name,
        "target_portal": PortalFactory(root_path="/vault").name,
    }
    job = Job.objects.get(pk=post("", **portals, **how)["id"])
    assert last_message(job).startswith("<en> oscar ")


def test_a_relaunch_is_stored_in_english(post: Post, job_in: Callable[..., Job]) -> None:
    job = Job.objects.get(pk=post(f"{job_in(Status.DONE).pk}/relaunch/")["id"])
    assert last_message(job).startswith("<en> oscar relaunched")


def test_a_refusal_is_in_the_language_of_the_user(post: Post, job_in: Callable[..., Job]) -> None:
    assert post(f"{job_in(Status.DONE).pk}/cancel/")["message"].startswith("<pt-br> ")
