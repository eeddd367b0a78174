"""A text column that holds an encrypted value."""

from __future__ import annotations

from django.db import models


class EncryptedTextField(models.TextField):
    """Text stored as a Fernet token; the attribute holds the token, never the secret.

    `portals.crypto.encrypt` makes the token and `decrypt` opens it, each in
    one place, so that no query, form or serializer can show a secret.
    """
