#!/usr/bin/env python3
"""Ketter's command line: `python3 manage.py help`."""

import os
import sys
from importlib.util import find_spec
from typing import NoReturn

#: Packages that Ketter cannot start without.
NEEDED = ("django", "django_rq", "environ", "psycopg", "cryptography")
#: Set while this Python hands over to the one in .venv, so that it does so only once.
HANDED_OVER = "KETTER_HANDED_OVER"
#: The exit status that a shell expects of a program that Ctrl-C ended.
INTERRUPTED = 130


def main() -> None:
    """Run one management command; `up` first makes the keys that settings need."""
    go_on_in_venv()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ketter_site.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    try:
        if sys.argv[1:2] == ["up"]:
            from ketter_site.env import make_secrets

            make_secrets()
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:  # A worker that waits for its Redis, a command that waits for input.
        sys.exit(INTERRUPTED)
    except ImproperlyConfigured as error:
        refuse(f"Ketter is not set up correctly: {error}")
    except OperationalError as error:
        refuse(f"Ketter cannot use its database: {str(error).strip()}")


def go_on_in_venv() -> None:
    """Run this command with the Python of .venv if this Python lacks a package of NEEDED."""
    handed_over = os.environ.pop(HANDED_OVER, None)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return
    checkout = os.path.dirname(os.path.realpath(__file__))
    venv = os.path.join(checkout, ".venv")
    python = os.path.join(venv, "bin", "python")
    here = os.path.realpath(sys.prefix) == os.path.realpath(venv)
    if os.access(python, os.X_OK) and not here and not handed_over:
        os.environ[HANDED_OVER] = "1"
        try:
            os.execv(python, [python, os.path.realpath(__file__), *sys.argv[1:]])  # noqa: S606
        except OSError as error:
            refuse(
                f"{python} cannot be run ({error.strerror}): bash deploy/demo.sh makes a new .venv."
            )
    refuse(
        f"{sys.executable} has no {missing[0]}, and {venv} cannot be used instead: "
        "bash deploy/demo.sh makes a .venv with every package that Ketter needs; this command "
        "then uses it by itself."
    )


def refuse(sentence: str) -> NoReturn:
    """Print a sentence and end with status 2, which means failure to `dku`, misuse to shells."""
    print(sentence, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
