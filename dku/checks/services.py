"""Checks of the services Ketter needs: Postgres, its schema, Redis, the web process."""

from __future__ import annotations

import json
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import django_rq
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from redis.exceptions import RedisError

from dku.findings import Finding, Verdict, first_line
from jobs.queueing.notify import QUEUE
from ketter_site import __version__
from ketter_site.env import env

ROUND_TRIPS = 5
#: rq's blocking moves need it.
REDIS_MINIMUM = (6, 2)
WEB_TIMEOUT = 10.0
WEB_URL_HELP = (
    "Set KETTER_WEB_URL (for example http://127.0.0.1:8000); `manage.py up` records it by itself."
)


def _latency_ms(round_trip: Callable[[], Any]) -> float:
    """The median time of some round trips, in milliseconds."""
    times = []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        round_trip()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1000, 2)


def _select_one() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()


def postgres() -> Finding:
    """Check that Postgres answers, and how fast."""
    try:
        connection.ensure_connection()
        latency = _latency_ms(_select_one)
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            version = cursor.fetchone()[0].split()[0]
    except DatabaseError as error:
        return Finding(
            Verdict.FAIL,
            "no answer",
            f"Postgres cannot be used: {first_line(error)}.",
            "Start it (`python3 manage.py up` starts the embedded one) or correct DATABASE_URL.",
        )
    return Finding(
        Verdict.PASS,
        f"{version}, {latency} ms",
        "Postgres answers.",
        measured={"version": version, "latency_ms": latency},
    )


def migrations() -> Finding:
    """Check that the database has the schema this code expects."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    pending = [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
    measured = {"pending": pending, "applied": len(executor.loader.applied_migrations)}
    if pending:
        return Finding(
            Verdict.FAIL,
            f"{len(pending)} pending",
            f"The database lacks {len(pending)} migrations that this code expects.",
            "Run `python3 manage.py migrate`.",
            details=tuple(pending),
            measured=measured,
        )
    return Finding(Verdict.PASS, "none pending", "The schema is up to date.", measured=measured)


def redis() -> Finding:
    """Check that Redis (or Valkey) answers, how fast, and how many jobs wait in the queue."""
    try:
        client = django_rq.get_connection(QUEUE)
        latency = _latency_ms(client.ping)
        info = client.info("server")
        waiting = django_rq.get_queue(QUEUE).count
    except (RedisError, OSError) as error:
        return Finding(
            Verdict.FAIL,
            "no answer",
            f"Redis cannot be used: {first_line(error)}",
            "Start it (`python3 manage.py up` starts the embedded one) or correct REDIS_URL.",
        )
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info["redis_version"])
    measured = {"server": name, "version": version, "latency_ms": latency, "waiting": waiting}
    value = f"{name} {version}, {latency} ms, {waiting} waiting"
    if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < REDIS_MINIMUM:
        return Finding(
            Verdict.FAIL,
            value,
            f"The queue needs Redis 6.2 or newer, this is {version}.",
            "Update the server.",
            measured=measured,
        )
    return Finding(Verdict.PASS, value, f"{name} answers.", measured=measured)


def web_url() -> str:
    """The address of the running web process; empty if none is known."""
    url: str = env.str("KETTER_WEB_URL", default="")
    recorded = settings.VAR_DIR / "run" / "web.url"
    if not url and recorded.is_file():
        url = recorded.read_text(encoding="utf-8")
    return url.strip().rstrip("/")


def _health(url: str) -> tuple[int, dict[str, Any]]:
    """The status and the body of GET /health. Raises ValueError if the body is no JSON object."""
    # No proxy stands between DKU and Ketter's own site.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=WEB_TIMEOUT) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("the answer is not an object")
    return status, found


def _web_fault(url: str, sentence: str) -> Finding:
    return Finding(
        Verdict.FAIL,
        url,
        sentence,
        "Start the web process (`python3 manage.py up`, or the web service), look into its log, "
        "or correct KETTER_WEB_URL.",
        measured={"url": url},
    )


def web() -> Finding:
    """Check that the running web process reports itself healthy and has this version."""
    url = web_url()
    if not url:
        return Finding(
            Verdict.WARN, "unknown", "The web process's address is not known.", WEB_URL_HELP
        )
    if not url.startswith(("http://", "https://")):
        sentence = "This is not a web address: it begins with neither http:// nor https://."
        return Finding(Verdict.FAIL, url, sentence, WEB_URL_HELP)
    started = time.perf_counter()
    try:
        status, body = _health(url)
    except OSError as error:
        return _web_fault(url, f"The web process does not answer: {first_line(error)}.")
    except ValueError as error:
        return _web_fault(url, f"The answer at this address is not Ketter's: {first_line(error)}.")
    latency = round((time.perf_counter() - started) * 1000, 1)
    version = str(body.get("version", ""))
    if status != 200:
        return _web_fault(url, f"The web process answers {status}: {json.dumps(body)[:500]}")
    measured = {"url": url, "status": status, "version": version, "latency_ms": latency}
    value = f"{url} {version}, {latency} ms"
    if version != __version__:
        return Finding(
            Verdict.WARN,
            value,
            f"The web process runs {version or 'an unknown version'}, here is {__version__}.",
            "Restart the web process.",
            measured=measured,
        )
    return Finding(Verdict.PASS, value, "The web process is healthy.", measured=measured)
