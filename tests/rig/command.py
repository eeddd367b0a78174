"""The engine's command line as a process, and its agents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rig.project import PROJECT


def cli(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *map(str, arguments)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes], seconds: float = 60) -> tuple[int, str, str]:
    """Wait for a command; its exit status, and what it said on stdout and on stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out.decode(), err.decode()


def agents_of(pid: int) -> list[int]:
    """The agents of a command: that of the target, then that of the source, for each stream."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    return [
        int(child) for child, parent in map(str.split, listing.splitlines()) if int(parent) == pid
    ]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
