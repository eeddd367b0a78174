"""What the tests of portals share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portals.models import Portal
from tests.portals.helpers import make_private_key
from tests.rig.sshd import Sshd


@pytest.fixture
def private_key(tmp_path: Path) -> str:
    """The text of a new private key without a passphrase."""
    return make_private_key(tmp_path / "key", passphrase="")


@pytest.fixture
def ssh_portal(db: None, sshd: Sshd, tmp_path: Path) -> Callable[..., Portal]:
    """Make a portal on the rig's sshd: right key, right pin, unless said otherwise."""
    from portals.services import credential_create, portal_create

    def make(**changes: Any) -> Portal:
        fields: dict[str, Any] = {
            "name": "srvtrf",
            "kind": "ssh",
            "host": sshd.host,
            "port": sshd.port,
            "username": sshd.username,
            "root_path": str(tmp_path),
            "host_key": sshd.host_key,
        }
        if "credential" not in changes:
            key = sshd.identity_file.read_text()
            fields["credential"] = credential_create(name="rig", kind="private_key", secret=key)
        return portal_create(**{**fields, **changes})

    return make
