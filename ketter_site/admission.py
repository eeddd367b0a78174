"""The users that the embedded Postgres lets in, and their roles.

Postgres asks the kernel which user is at the other end of its socket (`peer`) and looks that user
up in a map. The map holds the user that Ketter runs as, and root. It does not hold the user that
Postgres itself runs as, because other services of the machine may share that user. Ketter writes
the access rules and the map at each start, outside the data folder, which Postgres' user owns.

Ketter works as the role `ketter`, which owns its database and is no superuser, so that injected
SQL cannot read files of the machine. Ketter uses the superuser `postgres` only while it starts.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import psycopg

from ketter_site.processes import StartFailed
from ketter_site.servers import postgres_url

DATABASE = ROLE = "ketter"
SUPERUSER = "postgres"
#: In a folder of an earlier Ketter, `ketter` is the superuser, which cannot be undone. This role
#: renames it.
_MOVER = "ketter_moving"

_HBA = "# Written by Ketter at each start.\nlocal all all peer map=ketter\n"

_MOVE = """
ALTER ROLE ketter RENAME TO postgres;
CREATE ROLE ketter LOGIN CREATEDB;
ALTER DATABASE ketter OWNER TO ketter;
DO $move$
DECLARE
    thing record;
    before oid := (SELECT oid FROM pg_roles WHERE rolname = 'postgres');
BEGIN
    FOR thing IN
        SELECT nspname FROM pg_namespace
        WHERE nspowner = before AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO ketter', thing.nspname);
    END LOOP;
    FOR thing IN
        SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relowner = before AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            -- A sequence of a column goes with its table.
            AND NOT EXISTS (
                SELECT 1 FROM pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
            )
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO ketter', thing.name);
    END LOOP;
END
$move$;
"""


def write_admission(folder: Path) -> list[str]:
    """Write the access rules and the map beside Postgres' folder; return the settings for them."""
    names = dict.fromkeys((_name(os.geteuid()), _name(0) if os.geteuid() else ""))
    lines = [
        f'ketter "{_doubled(name)}" {role}\n'
        for name in names
        if name
        for role in (ROLE, SUPERUSER, _MOVER)
    ]
    hba, ident = folder.with_suffix(".hba"), folder.with_suffix(".ident")
    _write(hba, _HBA)
    _write(ident, "# Written by Ketter at each start.\n" + "".join(lines))
    return [f"hba_file={hba}", f"ident_file={ident}"]


def _name(uid: int) -> str:
    """The user's name, which the map holds. Raises StartFailed if the user has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        if uid == 0:
            return ""
        raise StartFailed(
            f"The user id {uid} has no name on this machine, and Postgres lets in only users with "
            "a name: add a line for it to /etc/passwd, or set DATABASE_URL."
        ) from None


def _doubled(name: str) -> str:
    """A name in which each double quote is doubled, to stand between double quotes."""
    return name.replace('"', '""')


def _write(path: Path, text: str) -> None:
    """Replace a file atomically, following no link; only this user may write it, all may read."""
    number, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def settle(socket_dir: Path) -> None:
    """Create the role and the database if they are missing.

    Raises psycopg.OperationalError while Postgres is still starting.
    """
    try:
        _make_missing(socket_dir)
    except psycopg.OperationalError:
        pass
    else:
        return
    # Postgres is not up yet, or the folder is an earlier Ketter's, without this superuser.
    _move(socket_dir)
    _make_missing(socket_dir)


def _make_missing(socket_dir: Path) -> None:
    with _connected(socket_dir, SUPERUSER, "postgres") as connection:
        connection.execute(f"DROP ROLE IF EXISTS {_MOVER}")
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
        if not connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
        ).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")


def _move(socket_dir: Path) -> None:
    """Rename the superuser `ketter` of an earlier Ketter's folder; safe to repeat half-way."""
    with _connected(socket_dir, ROLE, "postgres") as connection:
        query = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        if connection.execute(query).fetchone() != (True,):
            return  # Not an earlier Ketter's folder: Postgres came up just after the first try.
        found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_MOVER]).fetchone()
        if not found:
            connection.execute(f"CREATE ROLE {_MOVER} SUPERUSER LOGIN")
        if not connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
        ).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")
    with _connected(socket_dir, _MOVER, DATABASE) as connection, connection.transaction():
        connection.execute(_MOVE)


def _connected(
    socket_dir: Path, role: str, database: str
) -> psycopg.Connection[tuple[object, ...]]:
    url = postgres_url(socket_dir, database, role=role)
    return psycopg.connect(url, autocommit=True)
