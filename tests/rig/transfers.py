"""A transfer in this process: its two ends, and who runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
from engine import Endpoint, SshAccess
from tests.rig.sshd import Sshd

#: Runs a transfer from `tmp_path/a` to `tmp_path/b`, with an observer and options of `Request`.
Run = Callable[..., engine.Report]


def endpoint(path: Path | str) -> Endpoint:
    """A path on this machine as an end of a transfer."""
    return Endpoint("/", str(path).lstrip("/"))


def through(server: Sshd, **more: Any) -> SshAccess:
    """How to reach a server of the rig, with its key pinned."""
    plain = SshAccess(
        host=server.host,
        port=server.port,
        username=server.username,
        identity_file=str(server.identity_file),
        host_key=server.host_key,
    )
    return plain._replace(**more)
