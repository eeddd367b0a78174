"""`manage.py rqworker`: django-rq's command, with Ketter's worker."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from typing import Any

from django_rq.management.commands import rqworker

logger = logging.getLogger(__name__)

#: Seconds without a heartbeat after which Redis drops a worker's entry; rq adds 60.
WORKER_TTL = 60


class Command(rqworker.Command):
    """Run a worker, which also takes back jobs of dead workers. Takes django-rq's options."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add django-rq's options, with defaults for Ketter."""
        super().add_arguments(parser)
        parser.set_defaults(
            worker_class="jobs.worker.KetterWorker",
            serializer="rq.serializers.JSONSerializer",
            worker_ttl=WORKER_TTL,
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker; warn if it runs as root."""
        if os.geteuid() == 0:
            logger.warning(
                "This worker runs as root: what goes wrong in a transfer, or what a host makes go "
                "wrong, is done as root. Run it as a user of its own (docs/operations.md, "
                "“The user of a worker”)."
            )
        super().handle(*args, **options)
