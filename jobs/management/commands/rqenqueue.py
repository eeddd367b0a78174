"""`manage.py rqenqueue`: refused."""

from __future__ import annotations

from jobs.management.refused import RefusedCommand


class Command(RefusedCommand):
    """Says why Ketter does not use it."""

    sentence = (
        "rqenqueue queues a function by name, and Ketter's workers run none of these. Launch a job "
        "in the admin or through the API."
    )
