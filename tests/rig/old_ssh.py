"""A client of OpenSSH that refuses options, as older ones do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

#: What no client has but those that a distribution has changed.
PATCHED = ("GSSAPIKeyExchange",)
#: The newest options, as an OpenSSH of 2015 refuses them.
UNKNOWN_IN_2015 = (
    *("KnownHostsCommand", "RemoteCommand", "SessionType", "StdinNull"),
    *("ForkAfterAuthentication", "AddKeysToAgent", "Ciphers=^", "GSSAPIDelegateCredentials"),
    *PATCHED,
)


def old_client(folder: Path, patch: pytest.MonkeyPatch, refused: tuple[str, ...]) -> Path:
    """Put a client into PATH that refuses some options as an older one does; its log."""
    log, real = folder / "ssh.log", shutil.which("ssh")
    cases = "".join(
        f'        {name}*) echo "command-line: line 0: Bad configuration option: {name}" >&2; '
        "exit 255;;\n"
        for name in refused
    )
    stub = folder / "bin" / "ssh"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\nfor word in "$@"; do\n    case "$word" in\n{cases}'
        f'    esac\ndone\nexec {real} "$@"\n'
    )
    stub.chmod(0o755)
    patch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    return log
