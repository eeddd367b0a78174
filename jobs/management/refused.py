"""Refuses commands of django-rq that Ketter does not use; each says what to do instead."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser
from typing import Any, ClassVar

from django.core.management import BaseCommand, CommandError


class RefusedCommand(BaseCommand):
    """A command that ends with an error message, whatever its arguments are."""

    #: The message: the command, why Ketter refuses it, and what to do instead.
    sentence: ClassVar[str]
    # A message needs no database.
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Accept any options, for example those of the command of django-rq."""
        super().run_from_argv([*argv[:2], "--", *argv[2:]])

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Accept any arguments."""
        parser.add_argument("args", nargs=REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Raise CommandError with the message."""
        raise CommandError(self.sentence)
