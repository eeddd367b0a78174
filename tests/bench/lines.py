"""The two ways to the server: straight on, and through a relay that makes it far away."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.tools import Line
from tests.rig.sshd import Sshd

_RELAY = Path(__file__).with_name("delay.py")


def near(server: Sshd) -> Line:
    """The server itself, over loopback."""
    return Line(
        server.host,
        server.port,
        server.username,
        server.ssh_config,
        server.identity_file,
        server.known_hosts,
    )


@contextlib.contextmanager
def far(server: Sshd, round_trip: float) -> Iterator[Line]:
    """The same server, `round_trip` seconds away."""
    with relay(f"{server.host}:{server.port}", round_trip / 2) as port:
        known_hosts = server.folder / "known_hosts_far"
        known_hosts.write_text(f"[{server.host}]:{port} {server.host_key}\n")
        config = server.folder / "ssh_config_far"
        config.write_text(
            server.ssh_config.read_text()
            .replace(f"  Port {server.port}\n", f"  Port {port}\n")
            .replace(f"File {server.known_hosts}\n", f"File {known_hosts}\n")
        )
        yield Line(server.host, port, server.username, config, server.identity_file, known_hosts)


@contextlib.contextmanager
def relay(target: str, delay: float) -> Iterator[int]:
    """A delaying relay in front of `HOST:PORT`, as a process of its own; gives its port."""
    line = [sys.executable, "-I", "-S", str(_RELAY), "--to", target, "--delay", str(delay)]
    # It ends when its stdin does, so also when we are killed.
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
