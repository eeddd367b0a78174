"""Settings from the environment, checked where they are read.

The order is: the process environment, then `.env` in the project folder, then
`var/secrets.env`, which `manage.py up` makes at the first start. For every
variable X a file can be named in `X_FILE` instead, as container secrets are.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.FileAwareEnv()
environ.Env.read_env(BASE_DIR / ".env")

VAR_DIR = Path(env.str("KETTER_VAR_DIR", default="") or BASE_DIR / "var").absolute()
SECRETS_FILE = VAR_DIR / "secrets.env"
environ.Env.read_env(SECRETS_FILE)


def required(name: str, why: str) -> str:
    """The value of a variable that must be set and not empty."""
    value: str = env.str(name, default="").strip()
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set ({why}). `python manage.py up` makes one in var/secrets.env; "
            "for other installations see deploy/env.example."
        )
    return value


def positive(name: str, *, default: int) -> int:
    """The whole number above zero in a variable, or the default."""
    text: str = env.str(name, default=str(default)).strip()
    if not text.isdecimal() or not int(text):
        raise ImproperlyConfigured(f"{name} is {text!r}, which is not a whole number above 0.")
    return int(text)


def one_of(name: str, *words: str) -> str:
    """The word in a variable, of those that there are; the first is the default."""
    word: str = env.str(name, default=words[0]).strip()
    if word not in words:
        raise ImproperlyConfigured(f"{name} is {word!r}; it can be {' or '.join(words)}.")
    return word


def make_var_dir(folder: Path = VAR_DIR) -> Path:
    """Make the folder of all that Ketter writes for itself, closed to other users.

    Started by root, Postgres runs as another user and must pass through it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{folder} cannot be used for what Ketter writes ({error.strerror}): let this user "
            "own it, or name another folder in KETTER_VAR_DIR."
        ) from error
    return folder


def make_secrets() -> None:
    """Make the keys that are set nowhere, once, in a file only its owner can read.

    Settings cannot load without them, so this runs before settings do.
    """
    makers = {
        "KETTER_SECRET_KEY": lambda: secrets.token_urlsafe(50),
        "KETTER_FIELD_KEYS": lambda: Fernet.generate_key().decode(),
    }
    missing = {name: make() for name, make in makers.items() if not env.str(name, default="")}
    if not missing:
        return
    make_var_dir()
    file = os.open(SECRETS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(file, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.writelines(f"{name}={value}\n" for name, value in missing.items())
    environ.Env.read_env(SECRETS_FILE)
