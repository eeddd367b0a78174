"""`manage.py create_token USERNAME`: a token for the API, shown once."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError
from django.utils.translation import gettext_lazy as _
from knox.models import get_token_model


class Command(BaseCommand):
    """Make an API token; only its hash is kept, so it cannot be shown again."""

    help = str(_("Make a token for the API and print it, once."))

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the user and the token's life."""
        parser.add_argument("username")
        parser.add_argument(
            "--expires", type=int, metavar="DAYS", help="days it is valid (default: no end)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the token alone, so that a script can take it."""
        user = get_user_model().objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}; make it in the admin.")
        days = options["expires"]
        if days is not None and days < 1:
            raise CommandError(f"--expires is {days}; it takes a number of days, 1 or more.")
        expiry = timedelta(days=days) if days else None
        _token, text = get_token_model().objects.create(user=user, expiry=expiry)
        self.stdout.write(text)
