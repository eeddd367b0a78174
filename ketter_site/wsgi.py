"""The web server's entry point: `gunicorn ketter_site.wsgi`."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ketter_site.settings")

application = get_wsgi_application()
