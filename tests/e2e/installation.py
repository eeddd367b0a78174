"""Ketter as an installation of its own on LAB: web server, workers and a client with a token."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.core.management import call_command

from tests.rig.sshd import end_tree
from tests.rig.two_hosts import TwoHosts

PORT = 8000  # LAB has a loopback of its own, so nobody else can have it.
MACHINE = "lab"

#: What somebody would do with curl: one request, its status and its body.
CURL = """
import sys, urllib.error, urllib.request
method, url, token, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, method=method, headers={
    "Authorization": f"Token {token}", "Content-Type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=20)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status)
print(answer.read().decode())
"""


class Installation:
    """Ketter's processes on LAB, and its API as a client on LAB meets it.

    `token` says for whom the client speaks.
    """

    def __init__(self, hosts: TwoHosts, env: dict[str, str], logs: Path, token: str) -> None:
        self.hosts = hosts
        self._env = {**env, "KETTER_MACHINE": MACHINE}
        self._logs = logs
        self.token = token
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, **env: object) -> subprocess.Popen[bytes]:
        """Start a Python process on LAB; it ends with the test."""
        log = self._logs / f"{len(self._started)}-{arguments[1]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.hosts.in_lab([sys.executable, *arguments]),
                env={**self._env, **{name: str(value) for name, value in env.items()}},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def worker(self, **env: object) -> subprocess.Popen[bytes]:
        """Start a worker on LAB."""
        return self.run("manage.py", "rqworker", **env)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """One request to the API: the status and the decoded answer."""
        url = f"http://127.0.0.1:{PORT}{path}"
        text = json.dumps(body) if body is not None else ""
        answer = self.hosts.run_in_lab([sys.executable, "-c", CURL, method, url, self.token, text])
        assert answer.returncode == 0, answer.stderr
        status, _, rest = answer.stdout.partition("\n")
        return int(status), json.loads(rest)

    def launch(self, **order: Any) -> dict[str, Any]:
        """Create a job."""
        status, job = self.call("POST", "/api/jobs/", order)
        assert status == 201, job
        assert job["status"] == "queued"
        return dict(job)

    def wait(self, job: dict[str, Any], *states: str, seconds: float = 60) -> dict[str, Any]:
        """The job once it is in one of these states; fails with its trail if it never is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            _, found = self.call("GET", f"/api/jobs/{job['id']}/")
            if found["status"] in states:
                return dict(found)
            time.sleep(0.2)
        raise AssertionError(f"{found}\n{self.events(job)}\n{self.logs()}")

    def events(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """The job's trail."""
        _, page = self.call("GET", f"/api/jobs/{job['id']}/events/")
        return list(page["results"])

    def logs(self) -> str:
        """The last words of every process."""
        ends = (
            f"{log.name}: {log.read_text('utf-8', 'replace')[-3000:]}"
            for log in sorted(self._logs.iterdir())
        )
        return "\n".join(ends)

    def wait_for_web(self) -> None:
        """Return once the web server answers."""
        knock = ["bash", "-c", f"until (exec 3<>/dev/tcp/127.0.0.1/{PORT}); do sleep 0.1; done"]
        try:
            self.hosts.run_in_lab(["timeout", "30", *knock])
            status, _ = self.call("GET", "/api/jobs/")
        except AssertionError as error:
            raise AssertionError(self.logs()) from error
        assert status == 200

    def end(self) -> None:
        """End every process that was started, and what it started."""
        for process in self._started:
            end_tree(process.pid)
            process.wait()


def token_of(username: str) -> str:
    """A new token, as an administrator makes it."""
    said = io.StringIO()
    call_command("create_token", username, stdout=said)
    return said.getvalue().strip()
