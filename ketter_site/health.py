"""Two pages for machines: the web server answers; Ketter can do its work."""

from __future__ import annotations

import logging
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
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from jobs.queueing.notify import workers
from ketter_site import __version__

logger = logging.getLogger(__name__)

#: Check's name -> the error that the log has of it, until the check passes again.
_logged: dict[str, str] = {}


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
    """Check everything a job needs; the status is 503 if a check fails."""
    checks = {name: _outcome(name, check) for name, check in CHECKS.items()}
    healthy = all(outcome == "ok" for outcome in checks.values())
    return JsonResponse(
        {"status": "ok" if healthy else "failing", "version": __version__, "checks": checks},
        status=200 if healthy else 503,
    )


def _outcome(name: str, check: Callable[[], None]) -> str:
    """`ok`, or the error. The page is public: of other packages' errors it shows the class."""
    try:
        check()
    except Unhealthy as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  (any error is the answer)
        _log(name, error)
        return f"failing: {type(error).__name__}"
    _logged.pop(name, None)
    return "ok"


def _log(name: str, error: Exception) -> None:
    """Log an error with its traceback, once: probes ask every few seconds."""
    kind = type(error).__name__
    if _logged.get(name) != kind:
        _logged[name] = kind
        logger.error("Health check %s fails", name, exc_info=error)


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        if cursor.fetchone() == ("on",):
            raise Unhealthy("failing: Postgres takes no writes (it is read-only, or a standby)")


def _migrations() -> None:
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        raise Unhealthy(f"failing: {len(pending)} migrations are not applied")


def _redis() -> None:
    """Reach Redis, and write to it: with a Redis that takes no writes, no job begins."""
    try:
        django_rq.get_connection().set("ketter:health", 1, ex=60)
    except ResponseError as error:
        raise Unhealthy(f"failing: Redis {_refusal(error)}") from error


def _refusal(error: ResponseError) -> str:
    """Why Redis takes no writes, never in Redis' own words: the page is public."""
    if isinstance(error, OutOfMemoryError):
        return "is full, it takes no writes (maxmemory)"
    if isinstance(error, ReadOnlyError):
        return "is a replica, it takes no writes"
    if str(error).startswith("MISCONF"):
        return "cannot save to its disk, it takes no writes"
    if isinstance(error, NoPermissionError):
        return "does not let Ketter's user write"
    return f"takes no writes ({type(error).__name__})"


def _worker() -> None:
    # An idle or busy worker reports every KETTER_REAPER_SECONDS.
    silent = timedelta(seconds=30 + 2 * settings.KETTER_REAPER_SECONDS)
    for worker in workers():
        seen = worker.last_heartbeat
        # One that reports in the future is no worker's entry, or its clock is wrong.
        if seen and abs(datetime.now(UTC) - seen.replace(tzinfo=UTC)) < silent:
            return
    raise Unhealthy("failing: no worker is running")


CHECKS: dict[str, Callable[[], None]] = {
    "database": _database,
    "migrations": _migrations,
    "redis": _redis,
    "worker": _worker,
}
