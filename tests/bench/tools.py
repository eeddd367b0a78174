"""Ketter and its peers: where they are, and how each is told to do the same thing.

Every peer is called as most people call it, with its own defaults.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import first_line

KETTER = "ketter"


@dataclass(frozen=True)
class Line:
    """How the server is reached; both configurations name the same port."""

    host: str
    port: int
    username: str
    ssh_config: Path
    identity: Path
    known_hosts: Path


@dataclass(frozen=True)
class Work:
    """One transfer: the source, a folder or a file, becomes the target.

    The folder around the target exists. Without a line both are on this
    machine. `again` says that the target is there already.
    """

    source: Path
    target: Path
    line: Line | None = None
    again: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is about one file."""
        return self.source.is_file()

    @property
    def far_target(self) -> str:
        """The target as `host:path`."""
        assert self.line
        return f"{self.line.host}:{self.target}"

    @property
    def ssh(self) -> list[str]:
        """The ssh command without a host."""
        assert self.line
        return ["ssh", "-F", str(self.line.ssh_config)]


@dataclass(frozen=True)
class Tool:
    """A program that was found, and what it says it is."""

    name: str
    program: str
    version: str

    def command(self, work: Work) -> list[str]:
        """The command line that does the work."""
        return _COMMANDS[self.name](self.program, work)


def find() -> tuple[dict[str, Tool], dict[str, str]]:
    """The tools there are, by name, and why the others are missing."""
    found = {KETTER: Tool(KETTER, sys.executable, "this folder")}
    missing = {}
    for name, finder in _FINDERS.items():
        program, reason = finder()
        if program:
            found[name] = Tool(name, program, first_line(_VERSIONS[name](program)))
        else:
            missing[name] = reason
    return found, missing


def _on_path(name: str) -> tuple[str, str]:
    return shutil.which(name) or "", "not on PATH"


def _find_mscp() -> tuple[str, str]:
    program, reason = _on_path("mscp")
    # Other programs have that name too.
    if program and "multiple SSH connections" not in first_line([program, "-h"]):
        return "", f"{program} is another program of that name"
    return program, reason


def _find_rclone() -> tuple[str, str]:
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    if os.access(beside, os.X_OK):
        return beside, ""
    return shutil.which("rclone") or "", "neither beside this Python nor on PATH"


def _ketter(program: str, work: Work) -> list[str]:
    line = [program, "-m", "engine.cli", "--json", "--from", str(work.source), "--to"]
    if server := work.line:
        line += [f"ssh://{server.username}@{server.host}:{server.port}{work.target}"]
        line += ["--ssh-config", str(server.ssh_config), "--identity", str(server.identity)]
        line += ["--known-hosts", str(server.known_hosts)]
    else:
        line += [str(work.target)]
    return [*line, "--on-conflict", "skip"] if work.again else line


def _tar(program: str, work: Work) -> list[str]:
    folder = work.source.parent if work.is_file else work.source
    what = work.source.name if work.is_file else "."
    target = shlex.quote(str(work.target.parent if work.is_file else work.target))
    assert work.line
    far = [*work.ssh, work.line.host, f"mkdir -p {target} && tar -C {target} -xf -"]
    near = [program, "-C", str(folder), "-cf", "-", what]
    return ["sh", "-c", f"{shlex.join(near)} | {shlex.join(far)}"]


def _rsync(program: str, work: Work) -> list[str]:
    inside = "" if work.is_file else "/"
    where = [f"{work.source}{inside}", f"{work.far_target}{inside}"]
    return [program, "-a", "-e", shlex.join(work.ssh), *where]


def _scp(program: str, work: Work) -> list[str]:
    how = "-qp" if work.is_file else "-qrp"
    return [program, how, *work.ssh[1:], str(work.source), work.far_target]


def _mscp(program: str, work: Work) -> list[str]:
    return [program, "-qp", *work.ssh[1:], str(work.source), work.far_target]


def _rclone(program: str, work: Work) -> list[str]:
    server = work.line
    assert server
    line = [program, "copyto" if work.is_file else "copy", "--config", ""]
    line += ["--sftp-host", server.host, "--sftp-port", str(server.port)]
    line += ["--sftp-user", server.username, "--sftp-key-file", str(server.identity)]
    line += ["--sftp-known-hosts-file", str(server.known_hosts)]
    return [*line, str(work.source), f":sftp:{work.target}"]


def _cp(program: str, work: Work) -> list[str]:
    how = [] if work.is_file else ["-a"]
    return [program, *how, str(work.source), str(work.target)]


def copy_aside(source: Path, target: Path) -> None:
    """Make an identical target by other means, times included."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


_COMMANDS: dict[str, Callable[[str, Work], list[str]]] = {
    KETTER: _ketter,
    "tar": _tar,
    "rsync": _rsync,
    "scp": _scp,
    "mscp": _mscp,
    "rclone": _rclone,
    "cp": _cp,
}
_FINDERS: dict[str, Callable[[], tuple[str, str]]] = {
    "tar": lambda: _on_path("tar"),
    "rsync": lambda: _on_path("rsync"),
    "scp": lambda: _on_path("scp"),
    "mscp": _find_mscp,
    "rclone": _find_rclone,
    "cp": lambda: _on_path("cp"),
}
#: What makes a program tell its version; scp cannot, but comes with ssh.
_VERSIONS: dict[str, Callable[[str], list[str]]] = {
    "tar": lambda program: [program, "--version"],
    "rsync": lambda program: [program, "--version"],
    "scp": lambda _: ["ssh", "-V"],
    "mscp": lambda program: [program, "-h"],
    "rclone": lambda program: [program, "version"],
    "cp": lambda program: [program, "--version"],
}
#: How the tools are named in tables.
TITLES = {
    KETTER: "ketter, verified",
    "tar": "tar over ssh",
    "rsync": "rsync -a",
    "scp": "scp -rp",
    "mscp": "mscp",
    "rclone": "rclone copy (sftp)",
    "cp": "cp (-a)",
}
