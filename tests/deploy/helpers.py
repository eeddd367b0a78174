"""`manage.py` and Alembic as commands, and what they leave in a database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

from ketter_site.programs import postgres_programs
from tests.rig.project import PROJECT

Run = subprocess.CompletedProcess[str]


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
