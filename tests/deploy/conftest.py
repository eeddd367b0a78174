"""Empty databases, which the tests fill."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests import servers
from tests.factories import with_database


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
