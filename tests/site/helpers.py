"""A whole Ketter of a test's own, and what the tests of the site ask about processes and users."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.rig.project import PROJECT
from tests.rig.waiting import wait_until

OURS = ("DATABASE_URL", "REDIS_URL", "KETTER_SECRET_KEY", "KETTER_FIELD_KEYS")

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Installation:
    """A Ketter of this test alone."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.output = home / "output"
        self.env = {k: v for k, v in os.environ.items() if k not in OURS}
        self.env["KETTER_VAR_DIR"] = str(home / "var")
        self.first_words = ""
        self.up: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start it on a free port, and return once it answers."""
        ready = self.home / "ready.json"
        ready.unlink(missing_ok=True)
        argv = ["up", "--bind", "127.0.0.1:0", "--ready-file", str(ready)]
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", *argv],
                cwd=PROJECT,
                env=self.env,
                stdout=output,
                stderr=output,
            )
        self.up = process
        wait_until(lambda: ready.exists() or process.poll() is not None, seconds=60)
        assert ready.exists(), self.output.read_text()
        return process

    def stop(self) -> None:
        """End it, as Ctrl-C does."""
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
            self.up.wait(30)

    @property
    def url(self) -> str:
        """Where it answers."""
        return str(json.loads((self.home / "ready.json").read_text())["url"])

    def health(self) -> dict[str, Any]:
        """What it says about itself."""
        with urllib.request.urlopen(f"{self.url}/health", timeout=10) as answer:
            return dict(json.load(answer))

    def children(self) -> list[int]:
        """The processes it has started."""
        return [int(pid) for pid in json.loads((self.home / "var/run/children.json").read_text())]


def healthy(installation: Installation) -> bool:
    """Whether `/health` says ok; it answers 503, an error, until then."""
    try:
        return installation.health()["status"] == "ok"
    except urllib.error.HTTPError:
        return False


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
