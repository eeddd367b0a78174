"""Commands where neither database nor Redis is there: sentences, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cryptography.fernet import Fernet

from tests.rig.project import PROJECT

#: Where nothing listens.
AWAY = {"DATABASE_URL": "postgresql://u@127.0.0.1:9/k", "REDIS_URL": "redis://127.0.0.1:9/0"}


def start(var_dir: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """One command of manage.py; what it says goes to one pipe."""
    keys = {"KETTER_SECRET_KEY": "x" * 40, "KETTER_FIELD_KEYS": Fernet.generate_key().decode()}
    return subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=PROJECT,
        env={**os.environ, **keys, "KETTER_VAR_DIR": str(var_dir), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What a shell starts in the background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_worker_without_servers_says_what_is_missing_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    worker = start(tmp_path, "rqworker", **AWAY, KETTER_REAPER_SECONDS="1")
    said = ""
    deadline = time.monotonic() + 60
    assert worker.stdout
    while said.count("the reaper could not work") < 2:
        assert time.monotonic() < deadline, said
        said += worker.stdout.readline()
    worker.send_signal(signal.SIGINT)
    said += worker.communicate(timeout=20)[0]
    assert worker.returncode == 130, said
    assert "Traceback" not in said
    assert "cannot announce itself, Redis is away or refuses" in said
    assert "the reaper could not work, the database is away or refuses: conn" in said


def test_up_names_the_redis_that_it_cannot_use(tmp_path: Path) -> None:
    up = start(tmp_path, "up", REDIS_URL=AWAY["REDIS_URL"])
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 1, said
    assert "Ketter cannot use its Redis: " in said
    assert "127.0.0.1:9. Connection refused" in said
    assert "REDIS_URL" in said
    assert "Traceback" not in said
