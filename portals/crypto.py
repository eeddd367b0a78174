"""Secrets to tokens and back, with the keys in KETTER_FIELD_KEYS.

The first key encrypts, every key decrypts: put a new key in front, run
`manage.py rotate_credentials`, then take the old key out. The plain text of a token names the
row that it belongs to, so that a token copied to another row is refused.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from portals.errors import CannotDecrypt, SecretOfAnotherRow

#: What the plain text of a token begins with that names its row; NUL is in no secret.
_BOUND = "\0ketter-row\0"


def encrypt(text: str, *, of: str) -> str:
    """The token of a secret, made with the first key; `of` names the row that it belongs to."""
    return _keys().encrypt(f"{_BOUND}{of}\0{text}".encode()).decode()


def decrypt(token: str, *, of: str) -> str:
    """The secret in the token of a row; only `portals.endpoints` calls this.

    A token of an older Ketter names no row, and is opened too. Raises CannotDecrypt if no key
    opens the token, and SecretOfAnotherRow if the token names another row.
    """
    text = _plain(token)
    if not text.startswith(_BOUND):
        return text
    row, _separator, secret = text.removeprefix(_BOUND).partition("\0")
    if row != of:
        raise SecretOfAnotherRow(
            _(
                "The stored secret was made for another row of the database, and is not used. "
                "Find out who changed the database, then enter the secret again."
            )
        )
    return secret


def check(token: str, *, of: str) -> None:
    """Raise what `decrypt` would raise."""
    decrypt(token, of=of)


def rotate(token: str, *, of: str) -> str:
    """The same secret in a new token, made with the first key for this row.

    Raises what `decrypt` raises.
    """
    return encrypt(decrypt(token, of=of), of=of)


def is_bound(token: str) -> bool:
    """True if the token names its row. Raises CannotDecrypt if no key opens it."""
    return _plain(token).startswith(_BOUND)


def _plain(token: str) -> str:
    try:
        return _keys().decrypt(token).decode()
    except InvalidToken:
        raise _cannot() from None


def _keys() -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in settings.FIELD_KEYS])
    except ValueError:
        raise ImproperlyConfigured(
            "KETTER_FIELD_KEYS holds a key that is not a Fernet key; each of its "
            "comma-separated keys is 32 bytes in url-safe base64, 44 characters long."
        ) from None


def _cannot() -> CannotDecrypt:
    return CannotDecrypt(
        _(
            "The stored secret cannot be decrypted: none of the keys in KETTER_FIELD_KEYS made "
            "it. Put the old key back at the end of the list, or enter the secret again."
        )
    )
