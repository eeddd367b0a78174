"""A whole Ketter for the tests of the site: one installation, started by each test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT

OURS = ("DATABASE_URL", "REDIS_URL", "KETTER_SECRET_KEY", "KETTER_FIELD_KEYS")


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
        wait(lambda: ready.exists() or process.poll() is not None)
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


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """An installation that has run once; `first_words` is what it said then."""
    with tempfile.TemporaryDirectory(prefix="ketter-up-", dir="/tmp") as home:
        installation = Installation(Path(home))
        installation.start()
        installation.stop()
        installation.first_words = installation.output.read_text()
        yield installation
        installation.stop()


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


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
