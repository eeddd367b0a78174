"""What a thief of the database, of Redis or of the log has: no password, key or token in clear."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from jobs.services import job_create
from jobs.states import Status
from portals.models import Portal
from portals.services import credential_create
from tests.jobs.helpers import wait_for_end
from tests.rig.relay import Relay
from tests.rig.sshd import Sshd

PASSWORD = "correct-horse-battery-staple"
LOGIN = "a-login-of-oscar"


def rows() -> bytes:
    """All values of all tables, as a dump of the database has them."""
    with connection.cursor() as cursor:
        found = ""
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')
            found += "\n".join(row[0] for row in cursor.fetchall())
    return found.encode()


def redis_content(server: Any) -> bytes:
    """All keys and values of Redis, those that rq has compressed as they were before."""
    found: list[bytes] = []
    for key in server.keys("*"):
        match server.type(key):
            case b"string":
                found += [key, server.get(key) or b""]
            case b"hash":
                found += [part for pair in server.hgetall(key).items() for part in pair]
            case b"list":
                found += server.lrange(key, 0, -1)
            case b"set":
                found += server.smembers(key)
            case b"zset":
                found += server.zrange(key, 0, -1)
            case b"stream":
                found.append(repr(server.xrange(key)).encode())
            case b"none":
                continue  # It has expired meanwhile.
            case other:
                pytest.fail(f"a key of type {other!r} is in Redis")
    return b"\n".join(map(plain, found))


def plain(value: bytes) -> bytes:
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value


@pytest.mark.slow
def test_database_redis_and_log_hold_no_secret_after_a_job(
    worker: Callable[..., subprocess.Popen[bytes]],
    clean_redis: Any,
    oscar: User,
    lab: Portal,
    far: Portal,
    line: Relay,
    sshd: Sshd,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line.rate = 0
    credential_create(name="spare", kind="password", secret=PASSWORD)
    oscar.set_password(LOGIN)
    oscar.save()
    call_command("create_token", "oscar")
    token = max(capsys.readouterr().out.split(), key=len)
    assert len(token) > 40
    (Path(lab.root_path) / "day1").mkdir()
    (Path(lab.root_path) / "day1" / "secret-name").write_bytes(b"secret content")
    worker()
    job = job_create(
        by=oscar,
        source_portal=lab,
        source_path="day1",
        target_portal=far,
        target_path="in",
        mode="copy",
    )
    assert wait_for_end(job).status == Status.DONE

    database, redis = rows(), redis_content(clean_redis)

    key = sshd.identity_file.read_bytes()
    secrets = {
        "the password": PASSWORD.encode(),
        "the login": LOGIN.encode(),
        "the token": token.encode(),
        "the key": key.splitlines()[2],
        "the content": b"secret content",
        **{name: str(value).encode() for name, value in ours().items()},
    }
    assert {name for name, secret in secrets.items() if secret in database} == set()
    assert {name for name, secret in secrets.items() if secret in redis} == set()
    # What they do hold, as the threat model says.
    assert b"secret-name" not in redis
    assert b"rq:worker" in redis
    assert b"gAAAA" in database
    assert far.host_key.split()[1].encode() in database


def ours() -> dict[str, str]:
    """The keys of this installation."""
    return {"the field key": settings.FIELD_KEYS[0], "the secret key": settings.SECRET_KEY}
