"""Keeps secrets out of the log records that Ketter's processes write to stderr."""

from __future__ import annotations

import logging
import re
from urllib.parse import unquote, urlsplit

from django.conf import settings

HIDDEN = "[hidden]"
#: Characters of the shortest secret to blank out. A shorter one is also an ordinary word
#: ("ketter"): blanking it out would only point at it.
SHORTEST = 8

#: What secrets look like, and the text in their place.
_LOOKS = (
    # Postgres shows the whole row that a constraint refuses: also encrypted and hashed secrets.
    (re.compile(r"(Failing row contains ).*"), r"\1" + HIDDEN),
    (re.compile(r"gAAAA[A-Za-z0-9_=-]{20,}"), HIDDEN),
    (re.compile(r"\b(pbkdf2_\w+|argon2|bcrypt\w*|scrypt|md5)\$[^\s'\",)]+"), HIDDEN),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(---END [A-Z ]*KEY---|\Z)", re.DOTALL),
        HIDDEN,
    ),
    (re.compile(r"\b((?:Token|Bearer|Basic) )[A-Za-z0-9+/._=-]{16,}"), r"\1" + HIDDEN),
    (re.compile(r"(://[^\s:/@]*:)[^\s/@]+(?=@)"), r"\1" + HIDDEN),
)


class SecretlessFormatter(logging.Formatter):
    """Formats a record with its traceback, and blanks out secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return without_secrets(super().format(record))


def without_secrets(text: str) -> str:
    """The text without the settings' secrets and without what looks like a secret."""
    for secret in _ours():
        text = text.replace(secret, HIDDEN)
    for look, instead in _LOOKS:
        text = look.sub(instead, text)
    return text


def _ours() -> list[str]:
    passwords = [str(config.get("PASSWORD") or "") for config in settings.DATABASES.values()]
    in_url = urlsplit(settings.REDIS_URL).password or ""
    found = {settings.SECRET_KEY, *settings.FIELD_KEYS, *passwords, in_url, unquote(in_url)}
    return sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)
