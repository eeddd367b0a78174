"""Empty databases, and the two ways to fill them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ketter_site.embedded import postgres_programs
from tests import servers
from tests.factories import with_database

PROJECT = Path(__file__).resolve().parent.parent.parent

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def empty_database() -> Iterator[Callable[[], str]]:
    """Make an empty database on the run's Postgres and return its URL."""
    servers.start_postgres()
    maintenance = with_database(os.environ["DATABASE_URL"], "postgres")
    made: list[str] = []
    with psycopg.connect(maintenance, autocommit=True) as connection:

        def make() -> str:
            name = f"ketter_{secrets.token_hex(6)}"
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            made.append(name)
            return with_database(maintenance, name)

        yield make
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def manage(*arguments: str, url: str = "", project: Path = PROJECT) -> Run:
    """Run `manage.py` of a project folder, on a database of its own."""
    return _run([sys.executable, "manage.py", *arguments], url, project)


def alembic(*arguments: str, url: str, project: Path = PROJECT) -> Run:
    """Run the real Alembic on a project folder's export."""
    ini = project / "deploy" / "alembic" / "alembic.ini"
    # From elsewhere: nothing may depend on the folder that it is called in.
    return _run([sys.executable, "-m", "alembic", "-c", str(ini), *arguments], url, Path("/"))


def dump(url: str) -> list[str]:
    """The schema of a database as pg_dump tells it, without what differs by nature."""
    program = postgres_programs() / "pg_dump"
    options = ["--schema-only", "--no-owner", "--exclude-table=alembic_version"]
    done = _run([str(program), *options, "--dbname", url], url, PROJECT)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "restrict " not in line]


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    """What a query finds in a database."""
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def _run(argv: list[str], url: str, folder: Path) -> Run:
    env = {**os.environ, "DATABASE_URL": url or os.environ["DATABASE_URL"]}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
