"""A host that has ssh complain, or print, without end: it fills neither disk nor memory."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

import engine
from engine import connection_probe
from engine.connect import ssh
from engine.types import Endpoint, SshAccess

#: An ssh that takes every option, and then does SAY for ever.
STUB = """#!{python}
import os, sys, time
if "-G" in sys.argv:
    sys.exit(0)
log = sys.argv[sys.argv.index("-E") + 1]
line = b"Warning: this is probably a break-in attempt by a malicious server.\\n"
while True:
    {say}
"""
TO_THE_LOG = 'open(log, "ab").write(line * 2000); time.sleep(0.01)'
TO_STDERR = "os.write(2, line * 2000)"
#: Bytes that a flood has brought after some seconds, and that may be there at any time.
MANY = 10 << 20


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: str) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(STUB.format(python=sys.executable, say=say))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


class Largest(threading.Thread):
    """Watches how long ssh's log has been at most."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.most, self.over = folder, 0, False

    def run(self) -> None:
        while not self.over:
            for log in self.folder.glob("*/log"):
                try:
                    self.most = max(self.most, log.stat().st_size)
                except FileNotFoundError:
                    continue
            time.sleep(0.02)


@pytest.mark.parametrize("ask", ["probe", "fetch_host_key"])
def test_complaints_of_ssh_without_end_do_not_fill_the_disk(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    stub(tmp_path, monkeypatch, TO_THE_LOG)
    monkeypatch.setattr(connection_probe, "HELLO_SECONDS", 4.0)
    monkeypatch.setattr(ssh, "CONNECT_SECONDS", 2.0)
    watch = Largest(temporary)
    watch.start()
    access = SshAccess("host.invalid")

    asked = Endpoint("/", ssh=access) if ask == "probe" else access
    with pytest.raises(engine.HostUnreachable):
        getattr(engine, ask)(asked)

    watch.over = True
    watch.join()
    assert 0 < watch.most < MANY


def test_what_a_host_prints_before_a_login_does_not_fill_the_memory(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, TO_STDERR)
    monkeypatch.setattr(ssh, "CONNECT_SECONDS", 1.0)
    tracemalloc.start()
    try:
        with pytest.raises(engine.HostUnreachable):
            engine.fetch_host_key(SshAccess("host.invalid"))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < MANY
    assert not list(temporary.iterdir())
