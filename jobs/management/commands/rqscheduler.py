"""`manage.py rqscheduler`: refused."""

from __future__ import annotations

from jobs.management.refused import RefusedCommand


class Command(RefusedCommand):
    """Says why Ketter does not use it."""

    sentence = (
        "rqscheduler queues entries of Redis, but Ketter's schedule is in Postgres. Start "
        "`manage.py rqworker`: it starts scheduled jobs at their time."
    )
