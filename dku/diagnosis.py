"""The order of the checks, and how each one is run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from redis.exceptions import RedisError

from dku.checks import installation, places, services, smoke, workers
from dku.findings import Check, Finding, Verdict, first_line
from engine.errors import EngineError
from jobs.errors import JobError
from portals.errors import PortalError

logger = logging.getLogger(__name__)

#: Errors with a cause outside Ketter; any other is a bug and leaves a traceback in the log.
FORESEEN = (
    DatabaseError,
    RedisError,
    OSError,
    ImproperlyConfigured,
    EngineError,
    JobError,
    PortalError,
)

BASE_CHECKS = (
    Check("python", installation.python),
    Check("settings", installation.configuration),
    Check("postgres", services.postgres),
    Check("migrations", services.migrations, needs=("postgres",)),
    Check("credentials", installation.credentials, needs=("migrations",)),
    Check("redis", services.redis),
    Check("web", services.web),
    Check("workers", workers.workers, needs=("redis",)),
    Check("reaper", workers.reaper, needs=("redis",)),
    Check("machine", places.machine, needs=("migrations",)),
    Check("disk", places.disk),
    Check("portals", places.portals, needs=("migrations",)),
)


def checks(*, with_smoke: bool, timeout: float) -> list[Check]:
    """Every check in its order; each smoke job may take `timeout` seconds."""
    found = list(BASE_CHECKS)
    if with_smoke:
        found += [
            Check(
                f"smoke: {case.name}",
                partial(smoke.transfer, case, timeout),
                needs=("migrations", "redis"),
            )
            for case in smoke.CASES
        ]
        found.append(Check("smoke: damaged byte", smoke.corruption))
    return found


def diagnose(todo: Iterable[Check]) -> Iterator[Finding]:
    """Run the checks one after another; an error in one of them does not stop the others."""
    failed: set[str] = set()
    for check in todo:
        started = time.perf_counter()
        finding = _probe(check, failed)
        if finding.verdict is Verdict.FAIL:
            failed.add(check.name)
        seconds = round(time.perf_counter() - started, 3)
        yield replace(finding, name=check.name, seconds=seconds)


def _probe(check: Check, failed: set[str]) -> Finding:
    missing = [name for name in check.needs if name in failed]
    if missing:
        sentence = f"This needs {' and '.join(missing)}, which failed."
        return Finding(Verdict.FAIL, "not measured", sentence)
    try:
        return check.probe()
    except FORESEEN as error:
        return Finding(Verdict.FAIL, "not measured", first_line(error))
    except Exception as error:
        logger.exception("The check %s itself failed", check.name)
        return Finding(
            Verdict.FAIL,
            "not measured",
            f"The check itself failed: {type(error).__name__}: {first_line(error)}",
            "This is a bug in Ketter: please report it with the log.",
        )
