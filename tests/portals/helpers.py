"""A secret, a host key and private keys for the tests of portals."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: A secret that no page, answer or log may show; searched for as text.
SECRET = "correct-horse-battery-staple-7Q"

#: A public host key that no host has, with the fingerprint that `ssh-keygen -l` prints for it.
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8di/PZy6li+cGFCvgqTNa8gUQOdr/NH5DkpLvhWuTP"
FINGERPRINT = "SHA256:af7E+jGNN0SqiK9FDrsmJmtIOdtEcoGjwztOp7Abf+4"


def make_private_key(path: Path, *, passphrase: str) -> str:
    """Make an ed25519 key pair and return the text of its private half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.read_text()
