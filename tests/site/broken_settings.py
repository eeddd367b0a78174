"""Ketter's settings, with addresses that break in every way a page can."""

from ketter_site.settings import *  # noqa: F403
from ketter_site.settings import MIDDLEWARE as _MIDDLEWARE

ROOT_URLCONF = "tests.site.broken_urls"
MIDDLEWARE = [*_MIDDLEWARE, "tests.site.broken_urls.breaking"]
