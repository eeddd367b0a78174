"""Pytest plugin: a private Postgres and Valkey for each run, started when first needed.

It must be loaded before Django's settings are (`-p tests.servers`): it points
them at servers that do not run yet, in a short folder of this run alone. With
`DATABASE_URL` or `REDIS_URL` set, those servers are used instead.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from types import FrameType

from cryptography.fernet import Fernet

_own_postgres = not os.environ.get("DATABASE_URL")
_own_valkey = not os.environ.get("REDIS_URL")

# Not below TMPDIR, which can be too long for a socket's path.
RUN_DIR = Path(tempfile.mkdtemp(prefix="ketter-test-", dir="/tmp"))
_running: dict[str, embedded.Server] = {}


@atexit.register
def _leave_nothing(pid: int = os.getpid()) -> None:
    """End the servers and remove their folder, unless this is a forked child."""
    if os.getpid() == pid:
        for server in _running.values():
            server.stop()
        shutil.rmtree(RUN_DIR, ignore_errors=True)


def _stop_as_with_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# A run that is told to end also leaves nothing.
signal.signal(signal.SIGTERM, _stop_as_with_ctrl_c)

if os.geteuid() == 0:
    RUN_DIR.chmod(0o711)
# Whitenoise warns where `collectstatic` was not run, and warnings are errors here.
(RUN_DIR / "static").mkdir()

os.environ["KETTER_VAR_DIR"] = str(RUN_DIR)
os.environ["KETTER_SECRET_KEY"] = secrets.token_urlsafe(50)
os.environ["KETTER_FIELD_KEYS"] = Fernet.generate_key().decode()

import pytest  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402

from ketter_site import embedded, servers  # noqa: E402  (they read the environment)

# Also where a developer's .env names other servers: those are not for tests.
if _own_postgres:
    os.environ["DATABASE_URL"] = servers.postgres_url(servers.postgres_socket_folder(RUN_DIR))
if _own_valkey:
    os.environ["REDIS_URL"] = servers.valkey_url(servers.valkey_socket(RUN_DIR))

try:
    servers.database_config()
except ImproperlyConfigured as error:
    # Here, so that a wrong DATABASE_URL is one sentence and no traceback of an import.
    raise pytest.UsageError(str(error)) from None


def start_postgres() -> None:
    """Have Postgres running; called again, does nothing."""
    if _own_postgres and "postgres" not in _running:
        _running["postgres"] = embedded.start_postgres(
            RUN_DIR / "postgres", servers.postgres_socket_folder(RUN_DIR), durable=False
        )


def start_redis() -> None:
    """Have Valkey running; called again, does nothing."""
    if _own_valkey and "valkey" not in _running:
        _running["valkey"] = embedded.start_valkey(
            RUN_DIR / "valkey", servers.valkey_socket(RUN_DIR), durable=False
        )
