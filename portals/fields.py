"""A text column that holds an encrypted value."""

from __future__ import annotations

from typing import Any

from django.db import models

#: How every Fernet token begins: version 0x80 and the zero bytes of its time stamp.
FERNET_START = "gAAAAA"


class EncryptedTextField(models.TextField):
    """Text stored as a Fernet token; the attribute holds the token, never the secret.

    `portals.crypto.encrypt` makes the token and `decrypt` opens it, each in
    one place, so that no query, form or serializer can show a secret.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Raises ValueError if the value is plain text: a database error would print the row."""
        prepared = super().get_prep_value(value)
        if prepared and not prepared.startswith(FERNET_START):
            raise ValueError(f"{self.name} takes only what portals.crypto.encrypt returned")
        return prepared
