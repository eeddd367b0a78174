#!/usr/bin/env python
"""Ketter's command line: `python manage.py help`."""

import os
import sys
from typing import NoReturn


def main() -> None:
    """Run one management command; `up` first makes the keys that settings need."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ketter_site.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    try:
        if sys.argv[1:2] == ["up"]:
            from ketter_site.env import make_secrets

            make_secrets()
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        refuse(f"Ketter is not set up correctly: {error}")
    except OperationalError as error:
        refuse(f"Ketter cannot use its database: {str(error).strip()}")


def refuse(sentence: str) -> NoReturn:
    """End with a sentence. The status is 2, which `dku` has for a failure and shells for misuse."""
    print(sentence, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
