"""`manage.py rotate_credentials`: encrypt all secrets with the first field key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portals.errors import CannotDecrypt
from portals.services import credentials_rotate, credentials_unbound


class Command(BaseCommand):
    """Encrypt every stored secret again with the first key, all or none."""

    help = (
        "Encrypts every stored secret with the first key in KETTER_FIELD_KEYS, for its own row. "
        "Afterwards the other keys can be taken out of the list."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate the secrets; print how many there are, and which ones named no row before."""
        try:
            unbound = ", ".join(credential.name for credential in credentials_unbound())
            count = credentials_rotate()
        except CannotDecrypt as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{count} secrets are now encrypted with the first field key.")
        if unbound:
            self.stdout.write(
                f"These named no row of the database before, and now do: {unbound}. An older "
                "Ketter stores secrets so. If all named their row at an earlier rotation, another "
                "program has put these there: find out which, and enter the secrets again."
            )
