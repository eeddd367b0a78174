"""Which Postgres and Redis to use: those of the environment, else the embedded ones.

This module starts nothing. Without `DATABASE_URL` or `REDIS_URL` it names the
Unix socket at which `manage.py up` starts the embedded server.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from ketter_site.env import VAR_DIR, env

#: A socket's path must fit in 104 bytes on macOS and 108 on Linux, with its end.
SOCKET_PATH_MAX = 100
LONGEST_SOCKET = "postgres/.s.PGSQL.5432"
#: The number in the socket's name; always given, since PGPORT of the environment would change it.
POSTGRES_PORT = 5432


#: libpq's options (in seconds, the last in milliseconds) for a database behind a network: how long
#: connecting may take, and how long a host may be silent before libpq gives it up. With the
#: kernel's own limits, a worker would wait for 16 minutes. DATABASE_URL can set each of them.
PATIENCE = {
    "connect_timeout": 4,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 12000,
}


def socket_folder(var_dir: Path = VAR_DIR) -> Path:
    """The folder of the embedded servers' sockets: one for each var folder, in /tmp.

    Its path is short and has plain letters only, whatever the var folder's path has: a socket's
    path is limited to some 100 bytes, and clients split lists of paths at blanks (redis-py) and
    at commas (libpq).
    """
    mark = hashlib.sha256(os.fsencode(os.path.realpath(var_dir))).hexdigest()[:16]
    # Not the system's choice of temporary folder: every process must find the same one.
    return Path(f"/tmp/ketter-{mark}")  # noqa: S108


def postgres_socket_folder(var_dir: Path = VAR_DIR) -> Path:
    """Where the embedded Postgres puts its socket."""
    return socket_folder(var_dir) / "postgres"


def valkey_socket(var_dir: Path = VAR_DIR) -> Path:
    """The embedded Valkey's socket."""
    return socket_folder(var_dir) / "valkey.sock"


def postgres_user(var_dir: Path = VAR_DIR) -> str:
    """The user that the embedded Postgres runs as: its folder's owner; empty if it has no name.

    Before the first start it is empty if root starts Ketter: `ketter_site.embedded` finds one then.
    """
    try:
        owner = (var_dir / "postgres").stat().st_uid
    except OSError:
        owner = os.geteuid()
    try:
        return pwd.getpwuid(owner).pw_name if owner else ""
    except KeyError:
        return ""


def check_sockets(var_dir: Path = VAR_DIR) -> None:
    """Raise ImproperlyConfigured if another user has put the folder of the sockets there.

    While no Ketter runs in the var folder, any user may do so: that user's servers would answer.
    """
    folder = socket_folder(var_dir)
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    try:
        owner = var_dir.stat().st_uid
    except OSError:
        owner = os.geteuid()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid(), owner):
        raise ImproperlyConfigured(
            f"{folder} belongs to another user (number {found.st_uid}), and the sockets of "
            "Ketter's servers are there: find out who made it and remove it, or set "
            "KETTER_VAR_DIR to another folder."
        )


def postgres_url(socket_dir: Path, database: str = "ketter", *, role: str = "ketter") -> str:
    """A database URL that libpq, SQLAlchemy and Ketter's settings all understand."""
    return f"postgresql://{role}@:{POSTGRES_PORT}/{database}?host={quote(str(socket_dir))}"


def valkey_url(socket: Path) -> str:
    """A URL that redis-py understands."""
    return f"unix://{quote(str(socket))}?db=0"


def database_url() -> str:
    """The URL of Ketter's database."""
    given: str = env.str("DATABASE_URL", default="").strip()
    return given or postgres_url(postgres_socket_folder())


def redis_url() -> str:
    """The URL of Ketter's Redis or Valkey."""
    given: str = env.str("REDIS_URL", default="").strip()
    if not given:
        check_sockets()
    url = given or valkey_url(valkey_socket())
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ImproperlyConfigured(
            "REDIS_URL does not begin with redis://, rediss:// or unix://, as the address of a "
            "Redis or Valkey does."
        )
    return url


def database_config() -> dict[str, Any]:
    """Django's settings for `database_url()`; anything but Postgres is refused."""
    url = database_url()
    scheme = urlsplit(url).scheme
    if scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(
            f"DATABASE_URL begins with {scheme or 'no scheme'!r}, but Ketter runs on PostgreSQL "
            "only (postgresql://…): its workers claim jobs with row locks and conditional "
            "updates that other databases, SQLite among them, do not have. Leave DATABASE_URL "
            "out and `manage.py up` starts a Postgres of its own."
        )
    config: dict[str, Any] = environ.Env.db_url_config(url)
    options = config.setdefault("OPTIONS", {})
    # A socket folder travels as ?host=…; Django wants it where host names are.
    config["HOST"] = options.pop("host", config["HOST"])
    if not env.str("DATABASE_URL", default="").strip():
        check_sockets()
        if user := postgres_user():
            # A worker outlives its servers, and connects again to whatever is at the socket then.
            options["requirepeer"] = user
    if _is_far(config["HOST"], options):
        for word, most in PATIENCE.items():
            options.setdefault(word, most)
    config["CONN_MAX_AGE"] = env.int("KETTER_DATABASE_CONN_MAX_AGE", default=60)
    config["CONN_HEALTH_CHECKS"] = True
    return config


def _is_far(hosts: str, options: dict[str, Any]) -> bool:
    """True if any of the hosts (several are separated by commas) is behind a network."""
    named = str(hosts or options.get("hostaddr") or os.environ.get("PGHOST", "")).split(",")
    return any(host and not unquote(host).startswith(("/", "@")) for host in named)
