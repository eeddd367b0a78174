"""Alembic and Django lead to the same schema, and the export tells when it is out of date."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.deploy.helpers import alembic, dump, manage, rows
from tests.rig.project import PROJECT

TABLES = {"portals", "credentials", "jobs", "job_events", "job_parcels"}


@pytest.fixture(scope="module")
def django_url(empty_database: Callable[[], str]) -> str:
    """A database that Django migrated."""
    url = empty_database()
    done = manage("migrate", "-v0", url=url)
    assert done.returncode == 0, done.stderr
    return url


@pytest.fixture(scope="module")
def alembic_url(empty_database: Callable[[], str]) -> str:
    """A database that Alembic migrated."""
    url = empty_database()
    done = alembic("upgrade", "head", url=url)
    assert done.returncode == 0, done.stderr
    return url


@pytest.fixture(scope="module")
def sql_url(empty_database: Callable[[], str]) -> str:
    """A database that ran the SQL that Alembic prints."""
    url = empty_database()
    written = alembic("upgrade", "head", "--sql", url=url)
    assert written.returncode == 0, written.stderr
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(written.stdout.encode())
    return url


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    """A copy of the project, to spoil its migrations in."""
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("ketter_site", "portals", "jobs", "dku", "engine", "deploy/alembic"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=ignored)
    shutil.copy(PROJECT / "manage.py", tmp_path)
    return tmp_path


@pytest.mark.parametrize("way", ["alembic_url", "sql_url"])
def test_alembic_upgrade_and_the_sql_that_it_prints_make_the_same_schema_as_django(
    django_url: str, way: str, request: pytest.FixtureRequest
) -> None:
    schema = dump(django_url)
    assert {f"CREATE TABLE public.{table} (" for table in TABLES} <= set(schema)
    assert dump(request.getfixturevalue(way)) == schema


def test_django_finds_nothing_to_migrate_after_an_alembic_upgrade(
    django_url: str, alembic_url: str
) -> None:
    assert manage("migrate", "--check", url=alembic_url).returncode == 0
    # What Django makes after its migrations, no Alembic chain makes.
    assert manage("migrate", "-v0", url=alembic_url).returncode == 0
    for query in (
        "SELECT app, name FROM django_migrations ORDER BY 1, 2",
        "SELECT app_label, model FROM django_content_type ORDER BY 1, 2",
        "SELECT codename FROM auth_permission ORDER BY 1",
        "SELECT name FROM auth_group ORDER BY 1",
    ):
        found = rows(alembic_url, query)
        assert found
        assert found == rows(django_url, query)


def test_alembic_downgrade_to_base_removes_every_table(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    for goal in (("upgrade", "head"), ("downgrade", "base")):
        done = alembic(*goal, url=url)
        assert done.returncode == 0, done.stderr
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert rows(url, tables) == [("alembic_version",)]


def test_the_committed_alembic_export_is_current_and_is_checked_without_a_server(
    tmp_path: Path,
) -> None:
    nobody_there = f"postgresql://ketter@/ketter?host={tmp_path}"
    done = manage("export_alembic", "--check", url=nobody_there)
    assert done.returncode == 0, done.stderr


def test_export_alembic_check_notices_an_edited_migration(
    empty_database: Callable[[], str], project_copy: Path
) -> None:
    migration = project_copy / "portals" / "migrations" / "0001_initial.py"
    text = migration.read_text("utf-8")
    migration.write_text(text.replace("max_length=64", "max_length=63", 1), "utf-8")
    done = manage("export_alembic", "--check", project=project_copy)
    assert done.returncode == 1
    assert "+CREATE TABLE" in done.stderr
    assert "varchar(63)" in done.stderr
    # The digest of the file tells of edits that change no SQL.
    assert "+++ exported/manifest.json" in done.stderr
    assert "run `python3 manage.py export_alembic`" in done.stderr


DATA_MIGRATION = '''
from django.db import migrations


def add(apps, schema_editor):
    """Add a row with what SQL, SQLAlchemy and the driver each have a meaning for."""
    apps.get_model("sessions", "Session").objects.using(schema_editor.connection.alias).create(
        session_key="a:b %s :name", session_data="x\\n\\n;y", expire_date="2026-01-01T00:00:00Z"
    )


class Migration(migrations.Migration):
    dependencies = [("portals", "{leaf}"), ("sessions", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
'''
TWIN = """
INSERT INTO django_session (session_key, session_data, expire_date)
VALUES ('a:b %s :name', 'x

;y', '2026-01-01T00:00:00Z'::timestamptz);
"""
CONCURRENT_MIGRATION = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("portals", "9998_data")]
    operations = [
        AddIndexConcurrently("portal", models.Index(fields=["state"], name="portal_by_state")),
        migrations.AddField("portal", "seen", models.DateTimeField(default=timezone.now)),
    ]
"""


def test_export_alembic_refuses_a_python_migration_until_its_sql_twin_exists(
    empty_database: Callable[[], str], project_copy: Path
) -> None:
    folder = project_copy / "portals" / "migrations"
    leaf = max(folder.glob("0*.py")).stem
    (folder / "9998_data.py").write_text(DATA_MIGRATION.replace("{leaf}", leaf), "utf-8")
    (folder / "9999_concurrent.py").write_text(CONCURRENT_MIGRATION, "utf-8")
    without_twin = manage("export_alembic", project=project_copy)
    assert without_twin.returncode == 1
    assert "twins/portals_9998_data.up.sql" in without_twin.stderr

    twins = project_copy / "deploy" / "alembic" / "twins"
    twins.mkdir(exist_ok=True)
    (twins / "portals_9998_data.up.sql").write_text(TWIN, "utf-8")
    assert manage("export_alembic", project=project_copy).returncode == 0

    by_django, by_alembic = empty_database(), empty_database()
    assert manage("migrate", "-v0", url=by_django, project=project_copy).returncode == 0
    done = alembic("upgrade", "head", url=by_alembic, project=project_copy)
    assert done.returncode == 0, done.stderr
    assert dump(by_alembic) == dump(by_django)
    assert any("portal_by_state" in line for line in dump(by_alembic))
    sessions = "SELECT * FROM django_session"
    assert rows(by_alembic, sessions) == rows(by_django, sessions) != []
