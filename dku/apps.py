"""The DKU app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DkuConfig(AppConfig):
    """Tells whether the installation is healthy, and proves it."""

    name = "dku"
    verbose_name = _("DKU")
