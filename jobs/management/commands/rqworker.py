"""`manage.py rqworker`: django-rq's command, with Ketter's worker."""

from __future__ import annotations

from argparse import ArgumentParser

from django_rq.management.commands import rqworker

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
