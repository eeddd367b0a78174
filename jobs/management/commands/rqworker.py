"""`manage.py rqworker`: django-rq's command with Ketter's worker in it."""

from __future__ import annotations

from argparse import ArgumentParser

from django_rq.management.commands import rqworker

#: Seconds after which a silent worker is taken off the list; rq adds 60.
WORKER_TTL = 60


class Command(rqworker.Command):
    """Run a worker that also takes back lost jobs. Same options as django-rq's command."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Keep the stock options, with defaults that suit Ketter."""
        super().add_arguments(parser)
        parser.set_defaults(
            worker_class="jobs.worker.KetterWorker",
            serializer="rq.serializers.JSONSerializer",
            worker_ttl=WORKER_TTL,
        )
