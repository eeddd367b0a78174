"""Writes the Alembic chain from Django's migrations, or checks that it is current."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ketter_site.alembic_export.errors import ExportError
from ketter_site.alembic_export.files import difference, export, write
from ketter_site.env import BASE_DIR


class Command(BaseCommand):
    """`manage.py export_alembic [--check]`."""

    help = "Write deploy/alembic from Django's migrations, for databases migrated with Alembic."
    #: The export depends on no check and on no migration of the configured database.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--check`."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="write nothing; exit 1 with the difference if the export is not current",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Export to deploy/alembic, or compare with it."""
        folder = BASE_DIR / "deploy" / "alembic"
        try:
            files = export(folder)
        except ExportError as error:
            raise CommandError(str(error)) from error
        changes = difference(folder, files)
        if options["check"]:
            if changes:
                raise CommandError(
                    f"{changes}\ndeploy/alembic is not current: "
                    "run `python3 manage.py export_alembic` and commit what it writes."
                )
            self.stdout.write("deploy/alembic is current.")
            return
        write(folder, files)
        self.stdout.write(
            "deploy/alembic is written." if changes else "deploy/alembic was current already."
        )
