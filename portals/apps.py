"""The portals app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PortalsConfig(AppConfig):
    """Hosts, folders and credentials."""

    name = "portals"
    verbose_name = _("Portals")
