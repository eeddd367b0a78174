"""DKU as it is really used: a command of its own, told where the test's servers are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from tests.rig.project import PROJECT


@dataclass(frozen=True)
class Outcome:
    """One run of `manage.py dku --json`."""

    code: int
    stderr: str
    report: dict[str, Any]
    folder: Path

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The finding of that name."""
        return next(check for check in self.report["checks"] if check["name"] == name)


@pytest.fixture
def dku(worker_env: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Run `manage.py dku --json`; keyword arguments are more environment."""

    def run(*arguments: str, **env: str) -> Outcome:
        folder = tmp_path / "reports"
        ended = subprocess.run(
            [sys.executable, "manage.py", "dku", "--json", "--out", str(folder), *arguments],
            cwd=PROJECT,
            env={**worker_env, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.stdout, ended.stderr
        return Outcome(ended.returncode, ended.stderr, json.loads(ended.stdout), folder)

    return run


@pytest.fixture
def web(transactional_db: None, live_server: LiveServer) -> str:
    """The address of a web process that serves the test's database."""
    return live_server.url
