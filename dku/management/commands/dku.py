"""`manage.py dku`: measures this installation, proves it with transfers, writes a report."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.core.management.color import no_style

from dku.diagnosis import checks, diagnose
from dku.findings import Finding, Verdict
from dku.report import Report, finding_text, header
from engine import BadRequest
from ketter_site import __version__
from ketter_site.env import BASE_DIR

TIMEOUT_SECONDS = 120.0
#: The exit status that a shell expects of a program that Ctrl-C ended.
INTERRUPTED = 130


def positive(text: str) -> float:
    """A number of seconds above zero. Raises ValueError if the text is no such number."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


class Command(BaseCommand):
    """Measure every part, prove the whole by real transfers, write a report."""

    help = (
        "Checks this installation and proves it with real transfers. "
        "Exit status: 0 pass, 1 warnings, 2 failures."
    )
    # DKU examines broken installations: Django's own checks must not stop it first.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--no-smoke", action="store_true", help="Measure, transfer nothing.")
        parser.add_argument("--json", action="store_true", help="Print the JSON on stdout.")
        parser.add_argument("--out", type=Path, metavar="DIR", help="Where the report goes.")
        parser.add_argument(
            "--timeout",
            type=positive,
            default=TIMEOUT_SECONDS,
            metavar="SECONDS",
            help=f"How long each smoke job may take ({TIMEOUT_SECONDS:.0f}).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the checks, print and write the report, end with its exit status."""
        try:
            report = self.measure(options)
        except KeyboardInterrupt:
            self.stderr.write("Interrupted: nothing is proven, and no report was written.")
            sys.exit(INTERRUPTED)
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict(), indent=2))
        else:
            self.stdout.write(report.summary(self.paint))
        written = self.write_report(report, options["out"])
        code = report.verdict.exit_code if written else Verdict.FAIL.exit_code
        if code:
            sys.exit(code)

    def measure(self, options: dict[str, Any]) -> Report:
        """Run the checks; without --json, print each finding as soon as it is made."""
        started_at, started = datetime.now(UTC), time.perf_counter()
        show = not options["json"]
        if show:
            self.stdout.write(header(__version__, started_at))
        findings: list[Finding] = []
        todo = checks(with_smoke=not options["no_smoke"], timeout=options["timeout"])
        for finding in diagnose(todo):
            findings.append(finding)
            if show:
                self.stdout.write(finding_text(finding, self.paint))
                self.stdout.flush()
        seconds = round(time.perf_counter() - started, 2)
        return Report(__version__, started_at, seconds, tuple(findings))

    def paint(self, verdict: Verdict, text: str) -> str:
        """A verdict in its colour, on a terminal only."""
        style = self.style if self.stdout.isatty() else no_style()
        colours = {
            Verdict.PASS: style.SUCCESS,
            Verdict.WARN: style.WARNING,
            Verdict.FAIL: style.ERROR,
        }
        return str(colours[verdict](text))

    def write_report(self, report: Report, chosen: Path | None) -> bool:
        """Write the report to `chosen`, else to docs/, else below VAR_DIR; False if none works."""
        usual = [
            BASE_DIR / "docs" / "dku_reports",
            Path(settings.VAR_DIR) / "dku_reports",
        ]
        for folder in [chosen] if chosen else usual:
            try:
                files = report.write(folder)
            except OSError as error:
                self.stderr.write(f"No report in {folder}: {error.strerror}.")
                continue
            except BadRequest as error:
                self.stderr.write(f"No report: {error}.")
                continue
            # Not an error, so not in its colour; stdout may be a pipe that wants JSON only.
            self.stderr.write(f"Report: {' and '.join(map(str, files))}", style_func=str)
            return True
        return False
