"""The exported files: their expected text, and how the files on disk differ from it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from django.db import connection
from django.db.migrations.loader import MigrationLoader

from ketter_site.alembic_export.chain import (
    MANIFEST,
    extend,
    read_manifest,
    revision_of,
    write_manifest,
)
from ketter_site.alembic_export.collect import Step, collect, migration_table
from ketter_site.alembic_export.scratch import scratch_database

#: Hand-written SQL for migrations that run Python code.
TWINS = "twins"
#: Stands between two statements; runner.py splits there. A statement may hold blank lines and
#: semicolons.
SEPARATOR = "\n--;;\n"
#: The table in which Django records applied migrations. No migration makes it, so the chain does.
TABLE = "django_migrations"

VERSION = '''\
"""{title}

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "{revision}"
down_revision = {down_revision}
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="{stem}",
    app="{app}",
    name="{name}",
    atomic={atomic},
    reversible={reversible},
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
'''


def export(folder: Path) -> dict[str, str]:
    """The expected text of every exported file, by its path below the folder."""
    with scratch_database():
        chain = extend(read_manifest(folder), MigrationLoader(connection))
        up, down = migration_table()
        steps = list(collect(chain, folder / TWINS))
    base = _base_files(up, down)
    return {**base, **_step_files(steps), MANIFEST: write_manifest(chain)}


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the generated files and remove outdated ones; hand-written files stay."""
    for path in _generated(folder) - files.keys():
        (folder / path).unlink()
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")


def difference(folder: Path, files: Mapping[str, str]) -> str:
    """The changes that an export would make on disk, as a unified diff; empty if none."""
    return "".join(
        line
        for path in sorted(_generated(folder) | files.keys())
        for line in difflib.unified_diff(
            _lines(folder / path),
            files.get(path, "").splitlines(keepends=True),
            f"committed/{path}",
            f"exported/{path}",
        )
    )


def _generated(folder: Path) -> set[str]:
    found = [*folder.glob("versions/*.py"), *folder.glob("sql/*.sql")]
    return {path.relative_to(folder).as_posix() for path in found}


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []


def _base_files(up: Sequence[str], down: Sequence[str]) -> dict[str, str]:
    stem = f"0000_{TABLE}"
    version = VERSION.format(
        title=f"The table {TABLE}, in which Django notes its migrations.",
        revision=revision_of("", TABLE),
        down_revision=None,
        stem=stem,
        app="",
        name="",
        atomic=True,
        reversible=True,
    )
    return {
        f"versions/{stem}.py": version,
        f"sql/{stem}.up.sql": _sql(up),
        f"sql/{stem}.down.sql": _sql(down),
    }


def _step_files(steps: Sequence[Step]) -> dict[str, str]:
    return dict(
        file
        for number, (before, step) in enumerate(zip([None, *steps], steps, strict=False), 1)
        for file in _files_of(number, before, step)
    )


def _files_of(number: int, before: Step | None, step: Step) -> Iterator[tuple[str, str]]:
    link = step.link
    stem = f"{number:04}_{link.app}_{link.name}"
    parent = before.link.revision if before else revision_of("", TABLE)
    yield (
        f"versions/{stem}.py",
        VERSION.format(
            title=f"Django's migration {link.app}.{link.name}.",
            revision=link.revision,
            down_revision=f'"{parent}"',
            stem=stem,
            app=link.app,
            name=link.name,
            atomic=step.atomic,
            reversible=step.down is not None,
        ),
    )
    yield f"sql/{stem}.up.sql", _sql(step.up)
    if step.down is not None:
        yield f"sql/{stem}.down.sql", _sql(step.down)


def _sql(statements: Sequence[str]) -> str:
    return SEPARATOR.join(statements) + "\n"
