"""Blanks out known secrets in a report: the last defence if a check lets one through."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings

HIDDEN = "[hidden]"
#: Characters of the shortest secret to blank out. A shorter one is also an ordinary word
#: ("ketter"): blanking it out would only point at it.
SHORTEST = 8


def known_secrets() -> list[str]:
    """Every secret the settings hold, as written and as decoded; the longest first."""
    passwords = [str(config.get("PASSWORD") or "") for config in settings.DATABASES.values()]
    in_url = urlsplit(settings.REDIS_URL).password or ""
    found = {settings.SECRET_KEY, *settings.FIELD_KEYS, *passwords, in_url, unquote(in_url)}
    return sorted((s for s in found if len(s) >= SHORTEST), key=len, reverse=True)


def redacted(value: Any) -> Any:
    """The same JSON-able value with every known secret in its texts blanked out."""
    return _redacted(value, known_secrets())


def _redacted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, dict):
        return {key: _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, secrets) for item in value]
    return value
