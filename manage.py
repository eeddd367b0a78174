#!/usr/bin/env python
"""Ketter's command line: `python manage.py help`."""

import os
import sys


def main() -> None:
    """Run one management command; `up` first makes the keys that settings need."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ketter_site.settings")
    if sys.argv[1:2] == ["up"]:
        from ketter_site.env import make_secrets

        make_secrets()
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"Ketter is not set up correctly: {error}")


if __name__ == "__main__":
    main()
