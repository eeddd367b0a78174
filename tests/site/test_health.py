"""`/status/` and `/health`: what machines ask."""

from __future__ import annotations

import pytest
from django.test import Client

from ketter_site import __version__, health


def test_the_status_page_answers_online_without_asking_any_server(client):
    answer = client.get("/status/")
    assert answer.status_code == 200
    assert answer.json() == {"status": "Ketter online", "version": __version__}


@pytest.mark.django_db
def test_the_health_page_answers_503_without_a_worker(client, clean_redis):
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "failing",
        "version": __version__,
        "checks": {
            "database": "ok",
            "migrations": "ok",
            "redis": "ok",
            "worker": "failing: no worker is running",
        },
    }


@pytest.mark.django_db(transaction=True)
def test_the_health_page_is_ok_with_a_worker(client, worker):
    worker()
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert set(answer.json()["checks"].values()) == {"ok"}


@pytest.mark.django_db
def test_the_health_page_reports_pending_migrations(client, clean_redis, django_db_blocker):
    from django.db.migrations.recorder import MigrationRecorder

    MigrationRecorder.Migration.objects.filter(app="jobs").delete()
    assert client.get("/health").json()["checks"]["migrations"].endswith("are not applied")


@pytest.mark.django_db
def test_the_health_page_shows_only_the_kind_of_an_unexpected_error(
    client, clean_redis, monkeypatch
):
    def broken():
        raise ConnectionError("redis://:hunter2@example:6379 refused")

    monkeypatch.setitem(health.CHECKS, "redis", broken)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["checks"]["redis"] == "failing: ConnectionError"


@pytest.mark.parametrize("path", ["/status/", "/health"])
def test_the_status_and_health_pages_refuse_post_requests(path):
    assert Client(enforce_csrf_checks=True).post(path).status_code == 405
