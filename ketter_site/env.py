"""Settings from the environment, checked where they are read.

The order is: the process environment, then `.env` in the project folder, then
`var/secrets.env`, which `manage.py up` makes at the first start.
"""

from __future__ import annotations

from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
environ.Env.read_env(BASE_DIR / ".env")

VAR_DIR = Path(env.str("KETTER_VAR_DIR", default=str(BASE_DIR / "var"))).absolute()
environ.Env.read_env(VAR_DIR / "secrets.env")


def required(name: str, why: str) -> str:
    """The value of a variable that must be set and not empty."""
    value = env.str(name, default="").strip()
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set ({why}). `python manage.py up` makes one in var/secrets.env; "
            "for other installations see deploy/env.example."
        )
    return value
