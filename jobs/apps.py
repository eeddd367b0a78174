"""The jobs app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class JobsConfig(AppConfig):
    """Transfer jobs and their events."""

    name = "jobs"
    verbose_name = _("Jobs")

    def ready(self) -> None:
        """Grant the groups their rights after each migrate, and keep rq from unpickling."""
        # These modules import models, which exist only once all apps are loaded.
        from jobs.groups import jobs_granted
        from jobs.queueing.queue_records import refuse_pickles

        post_migrate.connect(jobs_granted, sender=self, dispatch_uid="jobs_granted")
        refuse_pickles()
