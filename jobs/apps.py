"""The jobs app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class JobsConfig(AppConfig):
    """Transfers and their trail."""

    name = "jobs"
    verbose_name = _("Jobs")

    def ready(self) -> None:
        """Have the groups get their rights after every migrate."""
        # Its models exist only once all apps are loaded.
        from jobs.groups import jobs_granted

        post_migrate.connect(jobs_granted, sender=self, dispatch_uid="jobs_granted")
