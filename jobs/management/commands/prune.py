"""`manage.py prune --older-than 90d`: remove the jobs that ended long ago."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.utils.translation import gettext_lazy as _

from jobs.retention import jobs_prune

#: At most five digits: dates of Postgres and Python do not go back further.
AGE = re.compile(r"([1-9][0-9]{0,4})([hdw])")
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Command(BaseCommand):
    """Remove old ended jobs, each with all of its events and parcels."""

    help = str(
        _(
            "Remove the jobs that ended longer ago than AGE, with their events and parcels. "
            "A job stays as long as a job that was relaunched from it stays."
        )
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the age and the dry run."""
        parser.add_argument(
            "--older-than",
            required=True,
            metavar="AGE",
            help="a number of hours, days or weeks: 12h, 90d, 2w",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="only count the jobs, remove nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prune, and print the numbers of rows."""
        dry_run = options["dry_run"]
        pruned = jobs_prune(older_than=age(options["older_than"]), dry_run=dry_run)
        line = (
            f"{'Would remove' if dry_run else 'Removed'} what ended before "
            f"{pruned.before:%Y-%m-%d %H:%M:%S %Z}: "
            f"jobs {pruned.jobs}, events {pruned.events}, parcels {pruned.parcels}."
        )
        if pruned.left:
            line += f" Not removed, see the log: jobs {pruned.left}."
        self.stdout.write(line)


def age(text: str) -> timedelta:
    """Return the age that a text like `90d` means. Raises CommandError at any other text."""
    match = AGE.fullmatch(text)
    if match is None:
        raise CommandError(
            f"--older-than takes a number from 1 to 99999 with h, d or w, like 90d, not {text!r}."
        )
    return int(match[1]) * UNITS[match[2]]
