"""`manage.py prune --older-than 90d`: remove the jobs that ended long ago."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.utils.translation import gettext_lazy as _

from jobs.retention import jobs_prune

#: No more digits: the database's dates, and Python's, go back only so far.
AGE = re.compile(r"([1-9][0-9]{0,4})([hdw])")
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Command(BaseCommand):
    """Remove old ended jobs, each whole: its row, its events and its parcels."""

    help = str(
        _(
            "Remove the jobs that ended longer ago than an age, with their events and parcels. "
            "A job stays as long as one that was relaunched from it."
        )
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How old, and whether for real."""
        parser.add_argument(
            "--older-than",
            required=True,
            metavar="AGE",
            help="a number of hours, days or weeks: 12h, 90d, 2w",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would go, change nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prune and say how much that was."""
        dry_run = options["dry_run"]
        pruned = jobs_prune(older_than=age(options["older_than"]), dry_run=dry_run)
        line = (
            f"{'Would remove' if dry_run else 'Removed'} what ended before "
            f"{pruned.before:%Y-%m-%d %H:%M:%S %Z}: "
            f"jobs {pruned.jobs}, events {pruned.events}, parcels {pruned.parcels}."
        )
        if pruned.left:
            line += f" Left alone, as the log says: jobs {pruned.left}."
        self.stdout.write(line)


def age(text: str) -> timedelta:
    """The age that a text like `90d` says."""
    said = AGE.fullmatch(text)
    if said is None:
        raise CommandError(
            f"--older-than takes a number from 1 to 99999 with h, d or w, like 90d, not {text!r}."
        )
    return int(said[1]) * UNITS[said[2]]
