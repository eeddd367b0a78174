"""Two answers for machines: is Ketter there, and can it do its work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import django_rq
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rq import Worker

from ketter_site import __version__


class Unhealthy(Exception):
    """A check found something wrong; the message is a sentence without secrets."""


@csrf_exempt
@never_cache
@require_safe
def status(request: HttpRequest) -> JsonResponse:
    """Say that the web server answers, without asking anything behind it."""
    return JsonResponse({"status": "Ketter online", "version": __version__})


@csrf_exempt
@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Check everything a job needs; 503 as soon as one check fails."""
    checks = {name: _outcome(check) for name, check in CHECKS.items()}
    healthy = all(outcome == "ok" for outcome in checks.values())
    return JsonResponse(
        {"status": "ok" if healthy else "failing", "version": __version__, "checks": checks},
        status=200 if healthy else 503,
    )


def _outcome(check: Callable[[], None]) -> str:
    """`ok`, or what is wrong; the page is public, so foreign errors show their kind only."""
    try:
        check()
    except Unhealthy as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  (whatever is wrong is the answer)
        return f"failing: {type(error).__name__}"
    return "ok"


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _migrations() -> None:
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        raise Unhealthy(f"failing: {len(pending)} migrations are not applied")


def _redis() -> None:
    django_rq.get_connection().ping()


def _worker() -> None:
    # A worker reports at the reaper's pace, be it idle or busy.
    silent = timedelta(seconds=30 + 2 * settings.KETTER_REAPER_SECONDS)
    for worker in Worker.all(connection=django_rq.get_connection()):
        seen = worker.last_heartbeat
        if seen and datetime.now(UTC) - seen.replace(tzinfo=UTC) < silent:
            return
    raise Unhealthy("failing: no worker is running")


CHECKS: dict[str, Callable[[], None]] = {
    "database": _database,
    "migrations": _migrations,
    "redis": _redis,
    "worker": _worker,
}
