"""What the tests of portals share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portals.models import Portal
from tests.rig.sshd import Sshd

#: A secret that no page, answer or log may show; searched for as text.
SECRET = "correct-horse-battery-staple-7Q"

#: A public host key of nobody, with the fingerprint that `ssh-keygen -l` prints for it.
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8di/PZy6li+cGFCvgqTNa8gUQOdr/NH5DkpLvhWuTP"
FINGERPRINT = "SHA256:af7E+jGNN0SqiK9FDrsmJmtIOdtEcoGjwztOp7Abf+4"


@pytest.fixture(autouse=True)
def quick_passwords(settings) -> None:
    """Hash passwords of users at once; nothing here is about how hard they are to guess."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def private_key(tmp_path: Path) -> str:
    """The text of a new private key without a passphrase."""
    return make_private_key(tmp_path / "key", passphrase="")


def make_private_key(path: Path, *, passphrase: str) -> str:
    """Make an ed25519 key pair and return the text of its private half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.read_text()


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
