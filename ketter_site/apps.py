"""Registers the project itself as an app, for its management commands."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SiteConfig(AppConfig):
    """The project's own app; it has commands and pages, but no models."""

    name = "ketter_site"
    verbose_name = _("Ketter")
