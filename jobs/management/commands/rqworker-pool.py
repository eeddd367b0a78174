"""`manage.py rqworker-pool`: refused."""  # noqa: N999

from __future__ import annotations

from jobs.management.refused import RefusedCommand


class Command(RefusedCommand):
    """Says why Ketter does not use it."""

    sentence = (
        "rqworker-pool starts rq's own workers, which take Ketter's wake-ups and lose them. Start "
        "`manage.py rqworker` once for each worker that you want."
    )
