"""The portals app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class PortalsConfig(AppConfig):
    """Hosts, folders and credentials."""

    name = "portals"
    verbose_name = _("Portals")

    def ready(self) -> None:
        """Create the groups after every migrate."""
        # Its models exist only once all apps are loaded.
        from portals.groups import portals_granted

        post_migrate.connect(portals_granted, sender=self, dispatch_uid="portals_granted")
