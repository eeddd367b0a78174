"""The queue's own pages stop transfers: superusers may open them, all of them, and nobody else."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django_rq.models import Dashboard

from jobs.queueing.notify import notify
from tests.factories import UserFactory

#: What stands in an address for each of its parts.
PARTS: dict[str, Any] = {
    "queue_index": 0,
    "scheduler_index": 0,
    "connection_index": 0,
    "job_id": "nojob",
    "result_id": "noresult",
    "key": "rq:worker:none",
    "scheduler_name": "none",
    "cron_job_name": "none",
    "token": "",
    "object_id": "1",
}


def addresses(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Every address below one, as it is written in the URL configuration."""
    for pattern in resolver.url_patterns:
        here = before + str(pattern.pattern).lstrip("^")
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern, here)
        else:
            yield here, pattern


def of_queue() -> list[str]:
    """All that leads into django-rq: by its name in the admin, or by the code that answers."""
    found = set()
    for address, pattern in addresses(get_resolver()):
        code = pattern.callback
        while hasattr(code, "__wrapped__"):
            code = code.__wrapped__
        if "/django_rq/" in address or str(code.__module__).startswith("django_rq"):
            found.add(_filled(address, pattern))
    return sorted(found)


def _filled(address: str, pattern: URLPattern) -> str:
    """The address with something in its variable parts."""
    for name in pattern.pattern.converters:
        address = re.sub(rf"<(\w+:)?{name}>", str(PARTS[name]), address)
    address = address.replace(r"(?P<token>[\w]+)?", "atoken").replace("/?", "/").rstrip("$")
    assert "<" not in address, f"say in PARTS what stands in {address}"
    return f"/{address}"


ADDRESSES = of_queue()


@pytest.fixture(params=["anonymous", "nobody's staff", "viewer", "operator", "all permissions"])
def stranger(request: pytest.FixtureRequest, db: None, vera: User, oscar: User, client: Any) -> Any:
    """Somebody who is no superuser; the last one has every permission there is."""
    users = {
        "nobody's staff": lambda: UserFactory(username="sam", is_staff=True),
        "viewer": lambda: vera,
        "operator": lambda: oscar,
        "all permissions": lambda: UserFactory(username="pat", is_staff=True),
    }
    if make := users.get(request.param):
        user: Any = make()
        if request.param == "all permissions":
            user.user_permissions.set(Permission.objects.all())
        client.force_login(user)
    client.signed_in = request.param != "anonymous"
    return client


def test_the_tested_addresses_include_the_pages_of_the_queue() -> None:
    assert len(ADDRESSES) >= 25
    assert "/admin/django_rq/dashboard/queues/0/nojob/stop/" in ADDRESSES
    assert "/admin/django_rq/dashboard/stats.json/" in ADDRESSES


@pytest.mark.parametrize("method", ["get", "post", "put", "head"])
def test_the_queue_pages_refuse_every_user_who_is_not_a_superuser(
    stranger: Any, clean_redis: Any, method: str
) -> None:
    job_id = uuid.uuid4()
    notify(job_id)
    before = {key: clean_redis.type(key) for key in clean_redis.keys("*")}

    for address in ADDRESSES:
        answer = getattr(stranger, method)(address, {"action": "delete", "_selected_action": "x"})
        if stranger.signed_in:
            assert answer.status_code == 403, address
        else:
            assert answer.status_code == 302, address
            assert answer.headers["Location"].startswith("/admin/login/?next="), address
        assert job_id.hex.encode() not in answer.content, address

    assert {key: clean_redis.type(key) for key in clean_redis.keys("*")} == before


@pytest.mark.parametrize("method", ["get", "post"])
def test_every_queue_page_answers_a_superuser_without_a_server_error(
    alice: User, client: Client, clean_redis: Any, method: str
) -> None:
    """With a page, or with a sentence that there is no such entry: never with a bug."""
    client.force_login(alice)
    client.raise_request_exception = False
    said = {address: getattr(client, method)(address).status_code for address in ADDRESSES}

    assert [address for address, status in said.items() if status >= 500] == []
    assert said["/admin/django_rq/dashboard/"] == 200
    if method == "get":
        assert said["/admin/django_rq/dashboard/queues/0/"] == 200
        assert said["/admin/django_rq/dashboard/queues/0/nojob/"] == 404


def test_a_queue_entry_with_an_odd_name_is_not_found(
    alice: User, client: Client, clean_redis: Any
) -> None:
    client.force_login(alice)
    for odd in ("<img src=x>", "a b", "%00", "\u202e"):
        assert client.get(f"/admin/django_rq/dashboard/queues/0/{odd}/").status_code == 404


def test_a_queue_page_answers_503_when_redis_does_not_answer(
    alice: User, client: Client, clean_redis: Any, settings: Any
) -> None:
    settings.RQ_QUEUES = {
        "default": {**settings.RQ_QUEUES["default"], "URL": "unix:///nonexistent/v.sock"}
    }
    client.force_login(alice)
    answer = client.get("/admin/django_rq/dashboard/queues/0/")
    assert (answer.status_code, b"Redis does not answer" in answer.content) == (503, True)


def test_the_admin_index_shows_the_queue_to_superusers_only(
    alice: User, stranger: Any, rf: Any, clean_redis: Any
) -> None:
    if stranger.signed_in:
        assert stranger.get("/admin/django_rq/").status_code == 404
        assert "django_rq" not in stranger.get("/admin/").content.decode()
    alices = Client()
    alices.force_login(alice)
    assert "/admin/django_rq/dashboard/" in alices.get("/admin/").content.decode()
    assert admin.site.is_registered(Dashboard)
