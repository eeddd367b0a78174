"""`verify`: a manifest that a transfer wrote, held against the target as it is now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT
from tests.rig.sshd import Sshd
from tests.rig.trees import build_mixed


def cli(*words: str | Path) -> tuple[int, dict[str, Any]]:
    line = [sys.executable, "-m", "engine.cli", *map(str, words), "--json"]
    done = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


@pytest.fixture
def delivered(tmp_path: Path) -> Path:
    """A tree that was delivered to b, and its manifest m."""
    build_mixed(tmp_path / "a")
    words = ("--from", tmp_path / "a", "--to", tmp_path / "b", "--manifest", tmp_path / "m")
    assert cli(*words)[0] == 0
    return tmp_path


def test_what_was_delivered_is_the_same(delivered: Path) -> None:
    status, verdict = cli("verify", "--manifest", delivered / "m", "--at", delivered / "b")

    entries = len((delivered / "m").read_text().splitlines())
    assert (status, verdict["status"], verdict["different"]) == (0, "same", 0)
    assert verdict["entries"] == entries > 15


def test_it_names_what_is_missing_and_what_is_different(delivered: Path) -> None:
    spoilt, gone = delivered / "b" / "large.mov", delivered / "b" / "tool.sh"
    times = spoilt.stat().st_mtime_ns
    with spoilt.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(spoilt, ns=(times, times))
    gone.unlink()

    status, verdict = cli("verify", "--manifest", delivered / "m", "--at", delivered / "b")

    found = {row["path"]: row["code"] for row in verdict["differences"]}
    assert status == 4
    assert found == {"large.mov": "CHECKSUM_MISMATCH", "tool.sh": "VANISHED"}


def test_it_reads_a_place_behind_ssh(delivered: Path, sshd: Sshd) -> None:
    status, verdict = cli(
        "verify", "--manifest", delivered / "m",
        "--at", f"ssh://{sshd.username}@{sshd.host}:{sshd.port}{delivered / 'b'}",
        "--ssh-config", sshd.ssh_config, "--known-hosts", sshd.known_hosts,
        "--identity", sshd.identity_file,
    )  # fmt: skip

    assert (status, verdict["status"]) == (0, "same")


@pytest.mark.parametrize(
    "text",
    [
        "no manifest\n",
        '{"path": "../out", "kind": "f", "size": 1, "sha256": ""}\n',
        '{"path": "x", "kind": "device", "size": 1, "sha256": ""}\n',
        '{"path": "x"}\n',
    ],
)
def test_what_is_no_manifest_is_a_wrong_request(delivered: Path, text: str) -> None:
    (delivered / "m").write_text(text)

    status, verdict = cli("verify", "--manifest", delivered / "m", "--at", delivered / "b")

    assert (status, verdict["code"]) == (2, "BAD_REQUEST")
