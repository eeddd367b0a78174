"""`manage.py rqcron`: refused."""

from __future__ import annotations

from jobs.management.refused import RefusedCommand


class Command(RefusedCommand):
    """Says why Ketter does not use it."""

    sentence = (
        "rqcron queues functions by name, and Ketter's workers run none of these. Schedule a job "
        "in the admin or through the API."
    )
