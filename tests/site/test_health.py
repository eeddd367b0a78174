"""`/status/` and `/health`: what machines ask."""

from __future__ import annotations

import pytest
from django.test import Client

from ketter_site import __version__, health


def test_it_says_that_it_is_online_without_asking_any_server(client):
    answer = client.get("/status/")
    assert answer.status_code == 200
    assert answer.json() == {"status": "Ketter online", "version": __version__}


@pytest.mark.django_db
def test_it_is_not_healthy_without_a_worker(client, clean_redis):
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
def test_it_is_healthy_with_a_worker(client, worker):
    worker()
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert set(answer.json()["checks"].values()) == {"ok"}


@pytest.mark.django_db
def test_it_counts_pending_migrations(client, clean_redis, django_db_blocker):
    from django.db.migrations.recorder import MigrationRecorder

    MigrationRecorder.Migration.objects.filter(app="jobs").delete()
    assert client.get("/health").json()["checks"]["migrations"].endswith("are not applied")


@pytest.mark.django_db
def test_it_shows_nothing_of_a_foreign_error_but_its_kind(client, clean_redis, monkeypatch):
    def broken():
        raise ConnectionError("redis://:hunter2@example:6379 refused")

    monkeypatch.setitem(health.CHECKS, "redis", broken)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["checks"]["redis"] == "failing: ConnectionError"


@pytest.mark.parametrize("path", ["/status/", "/health"])
def test_it_only_answers_questions(path):
    assert Client(enforce_csrf_checks=True).post(path).status_code == 405
