"""Reads each migration's SQL from Django, at the point of the chain where it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RunPython, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

from ketter_site.alembic_export.chain import Link, is_ours
from ketter_site.alembic_export.errors import ExportError

#: Libraries' migrations whose Python code changes nothing in a new database.
HARMLESS = frozenset(
    {
        ("auth", "0011_update_proxy_permissions"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("django_rq", "0003_alter_dashboard_permission_names"),
        ("knox", "0006_auto_20160818_0932"),
    }
)
#: Django's text for an operation that has no SQL.
NO_SQL = "-- THIS OPERATION CANNOT BE WRITTEN AS SQL"
MOMENT = re.compile(r"'(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?\+00:00)'(?:::timestamptz)?")


@dataclass(frozen=True)
class Step:
    """One migration as SQL, a text for each statement that Django sends.

    `down` is None if the migration cannot be undone.
    """

    link: Link
    atomic: bool
    up: tuple[str, ...]
    down: tuple[str, ...] | None


def migration_table() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The SQL that creates and drops the table in which Django records its migrations."""
    model = MigrationExecutor(connection).recorder.Migration
    with connection.schema_editor(collect_sql=True) as create:
        create.create_model(model)
    with connection.schema_editor(collect_sql=True) as drop:
        drop.delete_model(model)
    return tuple(create.collected_sql), tuple(drop.collected_sql)


def collect(chain: Sequence[Link], twins: Path) -> Iterator[Step]:
    """Apply the chain to the empty database, reading each migration's SQL on the way.

    Some operations look constraints up by name in the live database, so this
    function reads the SQL upwards right before it applies the migration, and the
    SQL downwards right after.
    """
    begun = datetime.now(UTC)
    executor = MigrationExecutor(connection)
    executor.recorder.ensure_schema()
    loader = MigrationLoader(connection, replace_migrations=False)
    state = loader.project_state(())
    for link in chain:
        migration = loader.get_migration(link.app, link.name)
        up = loader.collect_sql([(migration, False)])
        state = executor.apply_migration(state, migration)
        down = _collect_down(loader, migration)
        _refuse_hidden_code(migration)
        yield Step(
            link,
            bool(migration.atomic),
            _statements(up, begun, _Twin(migration, twins, "up")),
            None if down is None else _statements(down, begun, _Twin(migration, twins, "down")),
        )


def _collect_down(loader: MigrationLoader, migration: Migration) -> list[str] | None:
    try:
        return loader.collect_sql([(migration, True)])
    except IrreversibleError:
        return None


@dataclass(frozen=True)
class _Twin:
    """The hand-written SQL that does what a migration's Python code does."""

    migration: Migration
    folder: Path
    direction: str

    def sql(self) -> str:
        """The SQL in place of the Python code; empty for a library's harmless code.

        Raises ExportError if it is missing.
        """
        app, name = self.migration.app_label, self.migration.name
        if (app, name) in HARMLESS or self._does_nothing():
            return ""
        if not is_ours(self.migration):
            raise ExportError(
                f"{app}.{name} of a library runs Python code. Read it: if it changes nothing in a "
                "new database, add it to HARMLESS in ketter_site/alembic_export/collect.py."
            )
        path = self.folder / f"{app}_{name}.{self.direction}.sql"
        if not path.exists():
            raise ExportError(
                f"{app}.{name} runs Python code, which Alembic cannot: write SQL that does the "
                f"same ({self.direction}) to {path} (only a comment if there is nothing to do)."
            )
        return path.read_text("utf-8").strip()

    def _does_nothing(self) -> bool:
        attribute = "code" if self.direction == "up" else "reverse_code"
        codes = (getattr(op, attribute, None) for op in self.migration.operations)
        return all(code is None or code is RunPython.noop for code in codes)


def _refuse_hidden_code(migration: Migration) -> None:
    opaque = [op for op in migration.operations if not op.reduces_to_sql]
    if is_ours(migration) and len(opaque) > 1:
        raise ExportError(f"{migration} runs Python code twice: split it, one SQL twin for each.")
    for operation in migration.operations:
        if isinstance(operation, SeparateDatabaseAndState) and _hides_code(operation):
            raise ExportError(
                f"{migration} runs Python code inside SeparateDatabaseAndState, where Django's "
                "SQL does not show it: move it out."
            )


def _hides_code(operation: Operation) -> bool:
    nested: Iterable[Operation] = getattr(operation, "database_operations", ())
    return any(not child.reduces_to_sql or _hides_code(child) for child in nested)


def _statements(collected: Sequence[str], begun: datetime, twin: _Twin) -> tuple[str, ...]:
    """Django's list as statements, each after the comments that say what it is for."""
    found: list[str] = []
    comments: list[str] = []
    for text in collected:
        if text == NO_SQL:
            text = twin.sql()
        if text.startswith("--") and "\n" not in text:
            comments += [] if text == "--" else [text]
        elif text:
            found.append("\n".join([*comments, with_now(text, begun)]))
            comments = []
    return (*found, "\n".join(comments)) if comments else tuple(found)


def with_now(sql: str, begun: datetime) -> str:
    """Replace by now() each default that Django computed during this export.

    So each export gives the same text.
    """

    def moment(match: re.Match[str]) -> str:
        value = datetime.fromisoformat(match[1])
        return "now()" if begun <= value <= datetime.now(UTC) else match[0]

    return MOMENT.sub(moment, sql)
