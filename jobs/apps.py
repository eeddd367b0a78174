"""The jobs app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class JobsConfig(AppConfig):
    """Transfers and their trail."""

    name = "jobs"
    verbose_name = _("Jobs")
