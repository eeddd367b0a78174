"""A whole Ketter (`manage.py up`) on a shared host, run by root or by an ordinary user."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from tests.hostile.shared_host import (
    LIMIT_SECONDS,
    PASSWORD,
    SYSTEM_PYTHON,
    Host,
    Program,
    home,
    python,
)
from tests.rig.waiting import wait_until

_REQUEST = """
import json, sys, urllib.error, urllib.request
url, method, token, body = json.load(sys.stdin)
data = None if body is None else json.dumps(body).encode()
heads = {"Authorization": "Token " + token, "Content-Type": "application/json"}
asked = urllib.request.Request(url, data, heads, method=method)
try:
    with urllib.request.urlopen(asked, timeout=30) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit("%d %s" % (error.code, error.read().decode()[:2000]))
"""
#: States in which a job does not go on by itself.
RESTING = ("done", "partial", "failed", "cancelled", "needs_attention", "paused", "draft")


class Installation:
    """Ketter while it runs; `user` runs it, and its web server listens on the host's loopback."""

    def __init__(self, host: Host, user: str) -> None:
        self.host, self.user = host, user
        self.var = f"{home(user)}/var"
        self._port = {"root": 8000, "ketter": 8001}[user]
        self._env = {"KETTER_VAR_DIR": self.var, "KETTER_LEASE_SECONDS": "10"}
        self._up: Program | None = None
        self.token = ""

    def __enter__(self) -> Installation:
        ready = f"{home(self.user)}/ready.json"
        words = ["up", "--bind", f"127.0.0.1:{self._port}", "--ready-file", ready]
        self._up = self.host.start(self.user, [*python(), "manage.py", *words], self._env)
        try:
            file, up = self.host.there(ready), self._up
            wait_until(lambda: file.exists() or not up.runs, LIMIT_SECONDS)
            assert file.exists(), up.said()
            self.token = self.manage("create_token", "admin").strip()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._up
        if self._up.runs:
            self._up.send(signal.SIGTERM)
            self._up.finish(60)

    def manage(self, *words: str) -> str:
        """Run a management command to its end; what it printed."""
        status, said = self.host.run(self.user, [*python(), "manage.py", *words], self._env)
        assert status == 0, said
        return said

    # -- the API ----------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API as an administrator; the token is in no argument."""
        url = f"http://127.0.0.1:{self._port}/api/{path}"
        request = json.dumps([url, method, self.token, body])
        asked = self.host.start(self.user, [SYSTEM_PYTHON, "-c", _REQUEST], given=request)
        status, said = asked.finish()
        assert status == 0, said
        return json.loads(said) if said.strip() else None

    def portal(self, name: str, root: str, **more: Any) -> str:
        """Make a portal of this machine; its name."""
        self.api("POST", "portals/", {"name": name, "kind": "local", "root_path": root, **more})
        return name

    def far_portal(self, name: str, account: str, root: str, credential: str) -> str:
        """Make a portal behind the host's sshd; its name."""
        there = {"kind": "ssh", "host": "127.0.0.1", "port": self.host.port, "username": account}
        return self.portal(name, root, **there, host_key=self.host.host_key, credential=credential)

    def portal_id(self, name: str) -> int:
        """The number of a portal."""
        found = self.api("GET", "portals/?limit=200")["results"]
        return next(int(portal["id"]) for portal in found if portal["name"] == name)

    def credentials(self, mark: str) -> tuple[str, str]:
        """Make a password and a key that open both accounts; their names."""
        key = self.host.client_key.read_text()
        for kind, secret in (("password", PASSWORD), ("private_key", key)):
            body = {"name": f"{kind}-{mark}", "kind": kind, "secret": secret}
            self.api("POST", "credentials/", body)
        return f"password-{mark}", f"private_key-{mark}"

    def launch(self, source: str, target: str, **order: Any) -> str:
        """Launch a job between two portals; its id."""
        ends = {"source_portal": source, "target_portal": target}
        return str(self.api("POST", "jobs/", {**ends, **order})["id"])

    def job(self, job: str) -> dict[str, Any]:
        """A job as the API shows it."""
        return dict(self.api("GET", f"jobs/{job}/"))

    def wait(self, job: str, *states: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until a job is in one of these states (without any: at rest)."""
        until = time.monotonic() + seconds
        while True:
            found = self.job(job)
            if found["status"] in (states or RESTING):
                return found
            assert time.monotonic() < until, found
            time.sleep(0.3)

    # -- what must stay secret -----------------------------------------------------------

    def secrets(self) -> list[str]:
        """All that only this installation may know."""
        lines = self.host.there(f"{self.var}/secrets.env").read_text().splitlines()
        keys = [line.partition("=")[2] for line in lines if "=" in line]
        private = [
            line for line in self.host.client_key.read_text().splitlines() if "---" not in line
        ]
        assert len(keys) >= 2
        return [*keys, *private, PASSWORD, self.token]

    @property
    def logs(self) -> Path:
        """The folder of logs, where the test finds it."""
        return self.host.there(f"{self.var}/log")
