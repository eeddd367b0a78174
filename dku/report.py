"""The report: the same findings as text for people and as JSON for machines."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import engine
from dku.findings import Finding, Verdict, worst
from dku.redaction import redacted
from engine.named_files import create

#: Goes up if programs that read the JSON have to change.
FORMAT = 1
Paint = Callable[[Verdict, str], str]


def plain(verdict: Verdict, text: str) -> str:
    """The text without colour."""
    return text


@dataclass(frozen=True)
class Report:
    """The findings of DKU on one host at one time."""

    version: str
    started_at: datetime
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst finding's verdict."""
        return worst(finding.verdict for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able data, without secrets."""
        data = {
            "format": FORMAT,
            "ketter": self.version,
            "host": platform.node(),
            "at": self.started_at.isoformat(),
            "seconds": self.seconds,
            "verdict": self.verdict,
            "exit_code": self.verdict.exit_code,
            "checks": [asdict(finding) for finding in self.findings],
        }
        clean: dict[str, Any] = redacted(data)
        return clean

    def as_text(self) -> str:
        """The report as lines of text, without secrets."""
        lines = [header(self.version, self.started_at)]
        lines += [finding_text(finding) for finding in self.findings]
        return "\n".join([*lines, self.summary(), ""])

    def summary(self, paint: Paint = plain) -> str:
        """The last line: the verdict and the counts."""
        counts = ", ".join(
            f"{sum(f.verdict is verdict for f in self.findings)} {verdict}" for verdict in Verdict
        )
        verdict = paint(self.verdict, self.verdict.upper())
        return f"\n{verdict}: {counts}; {self.seconds} s"

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the text and the JSON into a folder, for this user alone.

        Raises OSError or BadRequest if that is not possible.
        """
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"dku_{self.started_at:%Y%m%dT%H%M%SZ}"
        text, data = folder / f"{stem}.txt", folder / f"{stem}.json"
        for path, content in (
            (text, self.as_text()),
            (data, json.dumps(self.as_dict(), indent=2) + "\n"),
        ):
            with create(str(path)) as file:
                file.write(content.encode())
        return text, data


def header(version: str, started_at: datetime) -> str:
    """The first line of a report."""
    return f"Ketter {version} DKU on {platform.node()}, {started_at:%Y-%m-%d %H:%M:%S} UTC\n"


def finding_text(finding: Finding, paint: Paint = plain) -> str:
    """One finding as text: a line; unless it is a pass, its meaning and what to do as well."""
    clean = _printable(redacted(asdict(finding)))
    verdict = paint(finding.verdict, f"{finding.verdict.upper():4}")
    lines = [f"{verdict}  {finding.name:20}  {clean['value']}  ({finding.seconds} s)"]
    if finding.verdict is not Verdict.PASS:
        lines.append(f"      {clean['sentence']}")
    lines += [f"      - {detail}" for detail in clean["details"]]
    if finding.remedy:
        lines.append(f"      -> {clean['remedy']}")
    return "\n".join(lines)


def _printable(value: Any) -> Any:
    """The same value, each text in it as one printable line: hosts and Redis have a part in it."""
    if isinstance(value, str):
        return engine.display_path(" ".join(value.splitlines()))
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value
