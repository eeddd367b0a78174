"""A throw-away database to read the SQL from, so that no live one is touched."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, OperationalError, connection
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict

from ketter_site.alembic_export.errors import ExportError
from ketter_site.embedded import start_postgres

#: The database that every Postgres server has, to create and drop others from.
MAINTENANCE = "postgres"


@contextmanager
def scratch_database() -> Iterator[None]:
    """Point Django's connection at a new, empty database; drop it at the end.

    It is on the configured server, or on a temporary embedded one if the
    configured server does not answer.
    """
    with ExitStack() as stack:
        server = connection.settings_dict
        if not _answers(server):
            server = {**server, **stack.enter_context(_temporary_server())}
        name = f"ketter_export_{secrets.token_hex(6)}"
        _command(server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        stack.callback(_command, server, f"DROP DATABASE {name} WITH (FORCE)")
        with _connection_to({**server, "NAME": name}):
            yield


@contextmanager
def _connection_to(settings: dict[str, Any]) -> Iterator[None]:
    """Repoint the default connection, so that migrations that name no alias use it, too."""
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update(settings)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(before)


@contextmanager
def _temporary_server() -> Iterator[dict[str, Any]]:
    # Directly in /tmp: the path of a Unix socket must be short.
    with tempfile.TemporaryDirectory(prefix="ketter-export-", dir="/tmp") as folder:
        server = start_postgres(Path(folder) / "data", Path(folder) / "run")
        try:
            url = conninfo_to_dict(server.url)
            yield {
                "HOST": url.get("host", ""),
                "PORT": url.get("port", ""),
                "USER": url.get("user", ""),
                "PASSWORD": url.get("password", ""),
                "OPTIONS": {},
            }
        finally:
            server.stop()


def _answers(server: dict[str, Any]) -> bool:
    try:
        _command(server, "SELECT 1")
    except OperationalError:
        return False
    return True


def _command(server: dict[str, Any], sql: str) -> None:
    handler = ConnectionHandler({DEFAULT_DB_ALIAS: {**server, "NAME": MAINTENANCE}})
    other = handler[DEFAULT_DB_ALIAS]
    try:
        with other.cursor() as cursor:
            cursor.execute(sql)
    except OperationalError:
        raise
    except Error as error:
        raise ExportError(f"The database server refused `{sql}`: {error}") from error
    finally:
        other.close()
