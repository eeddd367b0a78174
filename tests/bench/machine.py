"""The machine a figure was measured on, as far as it can tell."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


def describe(folder: Path) -> dict[str, Any]:
    """Everything about the machine that a reader of the figures needs."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        "cpu": _cpu(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ssh": first_line(["ssh", "-V"]),
        "folder": str(folder),
        "file_system": file_system(folder),
        # Near 0 on a machine that does nothing else.
        "load_at_start": round(os.getloadavg()[0], 2),
        "ketter": _revision(),
    }


def _revision() -> str:
    """The commit that is measured, and whether something was changed since."""
    git = ["git", "--no-optional-locks", "-C", str(PROJECT)]
    commit = first_line([*git, "rev-parse", "--short", "HEAD"])
    changed = first_line([*git, "status", "--porcelain", "engine"])
    return f"{commit} with changes" if changed else commit


def in_words(machine: dict[str, Any]) -> str:
    """The description as one line."""
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['system']} {machine['kernel']}, Python {machine['python']}, "
        f"{machine['ssh'].partition(',')[0]}, data in {machine['folder']} "
        f"({machine['file_system']}), load {machine['load_at_start']} at the start, "
        f"{machine['date']}, Ketter {machine['ketter'] or 'of unknown revision'}"
    )


def first_line(command: list[str]) -> str:
    """The first line a program prints, on whichever stream; empty if it fails."""
    try:
        said = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.decode("utf-8", "replace").partition("\n")[0].strip()


def file_system(folder: Path) -> str:
    """The kind of file system a folder is on."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    path = str(folder.resolve())
    best, kind = "", "unknown"
    for line in mounts.read_text("utf-8", "replace").splitlines():
        where, what = line.split()[1:3]
        inside = path == where or path.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(best):  # A later mount hides an earlier one.
            best, kind = where, what
    return kind


def room(folder: Path) -> int:
    """Bytes that may be written to a folder; in memory, not more than there is of it."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if file_system(folder) == "tmpfs":
        # What is left over is for the programs that are measured.
        free = min(free, memory_available() - (2 << 30))
    return free


def memory_available() -> int:
    """Bytes of memory that programs can still have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _cores() -> int:
    return os.cpu_count() or 1


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
