"""Secrets to tokens and back, with the keys in KETTER_FIELD_KEYS.

The first key encrypts, every key decrypts: put a new key in front, run
`manage.py rotate_credentials`, then take the old key out.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from portals.errors import CannotDecrypt


def encrypt(text: str) -> str:
    """The token of a secret, made with the first key."""
    return _keys().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """The secret in a token; only `portals.endpoints` calls this.

    Raises CannotDecrypt if no key opens the token.
    """
    try:
        return _keys().decrypt(token).decode()
    except InvalidToken:
        raise _cannot() from None


def rotate(token: str) -> str:
    """The same secret in a new token, made with the first key.

    Raises CannotDecrypt if no key opens the old token.
    """
    try:
        return _keys().rotate(token).decode()
    except InvalidToken:
        raise _cannot() from None


def can_decrypt(token: str) -> bool:
    """True if one of the keys opens the token."""
    try:
        _keys().decrypt(token)
    except InvalidToken:
        return False
    return True


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
