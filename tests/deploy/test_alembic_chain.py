"""The rules of the chain that need no database."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db.migrations.loader import MigrationLoader

from ketter_site.alembic_export import chain, collect
from ketter_site.alembic_export.errors import ExportError
from tests.rig.project import PROJECT

CONTENT_TYPES = ("contenttypes", "0001_initial")


@pytest.fixture(scope="module")
def loader() -> MigrationLoader:
    """Django's migrations as they are on disk."""
    return MigrationLoader(None)


def test_chain_extend_keeps_the_order_of_exported_migrations(loader: MigrationLoader) -> None:
    exported = [CONTENT_TYPES, ("sessions", "0001_initial"), ("auth", "0001_initial")]
    keys = [link.key for link in chain.extend(exported, loader)]
    assert keys[:3] == exported
    assert len(keys) == len(set(keys)) == len(loader.graph.nodes)


@pytest.mark.parametrize(
    ("exported", "sentence"),
    [
        (("portals", "0000_lost"), r"no longer in the code: portals\.0000_lost"),
        (("auth", "0001_initial"), r"auth\.0001_initial was exported before contenttypes"),
    ],
)
def test_chain_extend_refuses_an_exported_migration_that_is_lost_or_precedes_its_dependency(
    loader: MigrationLoader, exported: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(ExportError, match=sentence):
        chain.extend([exported], loader)


def test_chain_extend_gives_every_migration_a_unique_revision_that_fits_alembic(
    loader: MigrationLoader,
) -> None:
    links = chain.extend([], loader)
    assert len({link.revision for link in links}) == len(links)
    assert all(len(link.revision) <= 32 for link in links)
    assert chain.revision_of(*CONTENT_TYPES) == "2a86ff95d1e2"  # Databases hold it: never change.


def test_chain_extend_tracks_the_source_of_ketter_migrations_only(loader: MigrationLoader) -> None:
    watched = {link.app for link in chain.extend([], loader) if link.source}
    assert {"portals", "jobs"} <= watched
    assert watched <= {"portals", "jobs", "dku", "ketter_site"}


def test_with_now_replaces_only_timestamps_made_during_the_export() -> None:
    begun = datetime.now(UTC)
    moment = f"'{datetime.now(UTC).isoformat(sep=' ')}'::timestamptz"
    fixed = "'2026-01-01 00:00:00+00:00'::timestamptz"
    sql = f"UPDATE t SET a = {moment}, b = {fixed};"
    assert collect.with_now(sql, begun) == f"UPDATE t SET a = now(), b = {fixed};"


#: What is added for a host behind a network, so that one that is silent is given up.
LIMITS = r"(connect_timeout=4|keepalives(_\w+)?=\d|tcp_user_timeout=12000)&?"


@pytest.fixture(scope="module")
def sqlalchemy_url() -> Callable[[str], str]:
    """`deploy/alembic/database_url.py`, which no package holds."""
    path = PROJECT / "deploy" / "alembic" / "database_url.py"
    spec = importlib.util.spec_from_file_location("database_url", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda url: module.sqlalchemy_url(url).render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgres://u:p@db:5432/k", "postgresql+psycopg://u:p@db:5432/k"),
        ("postgresql://u:p%40ss@db/k", "postgresql+psycopg://u:p%40ss@db/k"),
        ("postgresql+psycopg://db/k?sslmode=require", "postgresql+psycopg://db/k?sslmode=require"),
        ("postgresql://u@/k?host=%2Frun%2Fpg", "postgresql+psycopg://u@/k?host=%2Frun%2Fpg"),
        ("postgres://u@%2Frun%2Fpg/k", "postgresql+psycopg://u@/k?host=%2Frun%2Fpg"),
        ("postgres:////run/pg/k", "postgresql+psycopg:///k?host=%2Frun%2Fpg"),
    ],
)
def test_sqlalchemy_url_converts_every_form_of_postgres_url(
    sqlalchemy_url: Callable[[str], str], given: str, expected: str
) -> None:
    said = sqlalchemy_url(given)
    far, near = re.subn(LIMITS, "", said), "host=" in said or "///" in said
    assert far[0].rstrip("?&") == expected
    assert far[1] == (0 if near else 6)


def test_sqlalchemy_url_keeps_a_timeout_given_in_the_url(
    sqlalchemy_url: Callable[[str], str],
) -> None:
    said = sqlalchemy_url("postgresql:///k?host=db1&host=db2&connect_timeout=30")
    assert "connect_timeout=30" in said
    assert "tcp_user_timeout=12000" in said


@pytest.mark.parametrize("given", ["", "sqlite:///db.sqlite3", "mysql://db/k"])
def test_sqlalchemy_url_refuses_any_database_but_postgres(
    sqlalchemy_url: Callable[[str], str], given: str
) -> None:
    with pytest.raises(SystemExit, match="DATABASE_URL"):
        sqlalchemy_url(given)
