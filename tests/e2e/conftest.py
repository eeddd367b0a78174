"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.installation import PORT, Installation, token_of
from tests.rig.two_hosts import UID, TwoHosts

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@pytest.fixture
def ketter(
    two_hosts: TwoHosts, worker_env: dict[str, str], tmp_path: Path, oscar: User
) -> Iterator[Installation]:
    """Ketter on LAB, with a web server and no worker yet; the client is the operator oscar."""
    logs = tmp_path / "logs"
    logs.mkdir()
    helpers = tmp_path / "tmp"
    helpers.mkdir()
    env = {**worker_env, "TMPDIR": str(helpers)}
    installation = Installation(two_hosts, env, logs, token_of("oscar"))
    try:
        installation.run("-m", "gunicorn", "ketter_site.wsgi", "--bind", f"127.0.0.1:{PORT}")
        installation.wait_for_web()
        yield installation
    finally:
        installation.end()


@pytest.fixture
def place(two_hosts: TwoHosts) -> str:
    """The name of a folder of this test's own below /srv, on both hosts."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    for root in (two_hosts.lab_root, two_hosts.srvtrf_root):
        (root / name).mkdir()
        os.chown(root / name, UID, UID)
    return name
