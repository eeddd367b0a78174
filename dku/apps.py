"""The DKU app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DkuConfig(AppConfig):
    """Checks that the installation is healthy, and proves it with real transfers."""

    name = "dku"
    verbose_name = _("DKU")
