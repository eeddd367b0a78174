"""Pytest plugin: a private Postgres and Valkey for each process of a run, started when needed.

It must be loaded before Django's settings are (`-p tests.servers`): it points
them at servers that do not run yet, in a short folder of this process alone. With
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

#: Tells the processes of a run with -n what was given to it: each has servers of its own,
#: and the environment of the first one, which has set these already.
GIVEN = "KETTER_TEST_SERVERS_GIVEN"
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[GIVEN] = " ".join(
        name for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)
    )
_own_postgres = "DATABASE_URL" not in os.environ[GIVEN].split()
_own_valkey = "REDIS_URL" not in os.environ[GIVEN].split()

# Not below TMPDIR, which may be closed to the user that Postgres runs as.
RUN_DIR = Path(tempfile.mkdtemp(prefix="ketter-test-", dir="/tmp"))
_running: dict[str, embedded.Server] = {}


@atexit.register
def _leave_nothing(pid: int = os.getpid()) -> None:
    """End the servers and remove their folder, unless this is a forked child."""
    if os.getpid() == pid:
        for server in _running.values():
            server.stop()
        embedded.remove_sockets(RUN_DIR)
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


def processes_beside() -> set[int]:
    """The processes below this one, without the servers', who have theirs come and go."""
    from tests.rig.sshd import descendants

    servers_own = [server.process.pid for server in _running.values()]
    return set(descendants(os.getpid(), but=servers_own))


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run several processes on one Redis: each would empty it under the others."""
    if config.getoption("numprocesses", None) and not _own_valkey:
        raise pytest.UsageError("with REDIS_URL the tests run in one process only: leave out -n")
