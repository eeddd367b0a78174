"""Runs one exported migration: its SQL, and the note of it that Django would make."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from alembic import op
from sqlalchemy import DateTime, String, column, func, table, text

SQL_FOLDER = Path(__file__).parent / "sql"
SEPARATOR = "\n--;;\n"

NOTES = table(
    "django_migrations",
    column("app", String),
    column("name", String),
    column("applied", DateTime),
)


@dataclass(frozen=True)
class Migration:
    """One of Django's migrations; without `app`, SQL that Django takes no note of.

    One that is not `atomic` runs outside a transaction, each statement by itself.
    """

    stem: str
    app: str
    name: str
    atomic: bool
    reversible: bool

    def up(self) -> None:
        """Apply the migration and note it as applied."""
        self._run("up")
        if self.app:
            note = {"app": self.app, "name": self.name, "applied": func.now()}
            op.execute(NOTES.insert().values(note))

    def down(self) -> None:
        """Undo the migration and remove the note."""
        if not self.reversible:
            raise SystemExit(f"{self.app}.{self.name} cannot be undone; restore a backup instead.")
        self._run("down")
        if self.app:
            note = (NOTES.c.app == self.app) & (NOTES.c.name == self.name)
            op.execute(NOTES.delete().where(note))

    def _run(self, direction: str) -> None:
        script = (SQL_FOLDER / f"{self.stem}.{direction}.sql").read_text("utf-8")
        with self._transaction():
            for statement in script.split(SEPARATOR):
                if any(line and not line.startswith("--") for line in statement.splitlines()):
                    # A colon would begin a parameter; Alembic ends statements itself.
                    op.execute(text(statement.rstrip().removesuffix(";").replace(":", "\\:")))

    def _transaction(self) -> AbstractContextManager[None]:
        if self.atomic:
            return nullcontext()
        return op.get_context().autocommit_block()
