"""The rules of the chain that need no database."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db.migrations.loader import MigrationLoader

from ketter_site.alembic_export import chain, collect
from ketter_site.alembic_export.errors import ExportError
from tests.deploy.conftest import PROJECT

CONTENT_TYPES = ("contenttypes", "0001_initial")


@pytest.fixture(scope="module")
def loader() -> MigrationLoader:
    """Django's migrations as they are on disk."""
    return MigrationLoader(None)


def test_it_keeps_the_place_of_what_was_exported(loader: MigrationLoader) -> None:
    exported = [CONTENT_TYPES, ("sessions", "0001_initial"), ("auth", "0001_initial")]
    keys = [link.key for link in chain.extend(exported, loader)]
    assert keys[:3] == exported
    assert len(keys) == len(set(keys)) == len(loader.graph.nodes)


def test_it_refuses_to_lose_an_exported_migration(loader: MigrationLoader) -> None:
    with pytest.raises(ExportError, match=r"no longer there: portals\.0000_lost"):
        chain.extend([("portals", "0000_lost")], loader)


def test_it_refuses_a_migration_before_what_it_needs(loader: MigrationLoader) -> None:
    with pytest.raises(ExportError, match=r"auth\.0001_initial was exported before contenttypes"):
        chain.extend([("auth", "0001_initial")], loader)


def test_it_gives_every_migration_a_revision_that_alembic_can_hold(loader: MigrationLoader) -> None:
    links = chain.extend([], loader)
    assert len({link.revision for link in links}) == len(links)
    assert all(len(link.revision) <= 32 for link in links)
    assert chain.revision_of(*CONTENT_TYPES) == "2a86ff95d1e2"  # Databases hold it: never change.


def test_it_watches_the_source_of_our_own_migrations_only(loader: MigrationLoader) -> None:
    watched = {link.app for link in chain.extend([], loader) if link.source}
    assert {"portals", "jobs"} <= watched
    assert watched <= {"portals", "jobs", "dku", "ketter_site"}


def test_it_says_now_only_for_moments_of_the_export() -> None:
    begun = datetime.now(UTC)
    moment = f"'{datetime.now(UTC).isoformat(sep=' ')}'::timestamptz"
    fixed = "'2026-01-01 00:00:00+00:00'::timestamptz"
    sql = f"UPDATE t SET a = {moment}, b = {fixed};"
    assert collect.with_now(sql, begun) == f"UPDATE t SET a = now(), b = {fixed};"


@pytest.fixture(scope="module")
def sqlalchemy_url() -> Callable[[str], object]:
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
def test_it_understands_every_form_of_database_url(
    sqlalchemy_url: Callable[[str], object], given: str, expected: str
) -> None:
    assert sqlalchemy_url(given) == expected


@pytest.mark.parametrize("given", ["", "sqlite:///db.sqlite3", "mysql://db/k"])
def test_it_takes_nothing_but_postgres(sqlalchemy_url: Callable[[str], object], given: str) -> None:
    with pytest.raises(SystemExit, match="DATABASE_URL"):
        sqlalchemy_url(given)
