"""The order of the Alembic chain: exported migrations keep their place, new ones go to the end."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from django.db.migrations import Migration
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.loader import MigrationLoader

from ketter_site.alembic_export.errors import ExportError
from ketter_site.env import BASE_DIR

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Link:
    """One migration in the chain.

    `source` is the SHA-256 of the migration's file if it is one of Ketter's. It reveals
    an edit that changes no SQL, such as one inside a RunPython.
    """

    revision: str
    app: str
    name: str
    source: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """How Django names this migration."""
        return self.app, self.name


def revision_of(app: str, name: str) -> str:
    """A stable Alembic id; Alembic's own table holds 32 characters at most."""
    return hashlib.sha1(f"{app}.{name}".encode(), usedforsecurity=False).hexdigest()[:12]


def is_ours(migration: Migration) -> bool:
    """True if the migration is one of this project's, not a library's."""
    package = type(migration).__module__.partition(".")[0]
    return (BASE_DIR / package).is_dir()


def read_manifest(folder: Path) -> list[tuple[str, str]]:
    """The migrations exported so far, in their order; none before the first export."""
    path = folder / MANIFEST
    if not path.exists():
        return []
    return [(link["app"], link["name"]) for link in json.loads(path.read_text("utf-8"))]


def write_manifest(chain: Sequence[Link]) -> str:
    """The manifest's text."""
    return json.dumps([asdict(link) for link in chain], indent=2) + "\n"


def extend(exported: Sequence[tuple[str, str]], loader: MigrationLoader) -> list[Link]:
    """The chain: the exported migrations in their order, then the new ones.

    Raises ExportError if an exported migration is gone, or stands before one it depends on.
    """
    graph = loader.graph
    gone = [f"{app}.{name}" for app, name in exported if (app, name) not in graph.nodes]
    if gone:
        raise ExportError(
            f"Exported earlier, but no longer in the code: {', '.join(gone)}. A database may have "
            f"it applied, so put it back. If none has, delete {MANIFEST} and export again."
        )
    known = set(exported)
    keys = [*exported, *(key for key in _django_order(graph) if key not in known)]
    _check_order(keys, graph)
    return [_link(graph.nodes[key]) for key in keys]


def _django_order(graph: MigrationGraph) -> list[tuple[str, str]]:
    order: dict[tuple[str, str], None] = {}
    for leaf in sorted(graph.leaf_nodes()):
        order.update(dict.fromkeys(graph.forwards_plan(leaf)))
    return list(order)


def _check_order(keys: Iterable[tuple[str, str]], graph: MigrationGraph) -> None:
    """Raises ExportError if a migration stands before one it depends on.

    A library's upgrade can insert a migration before exported ones: the chain's end is too late.
    """
    seen: set[tuple[str, str]] = set()
    for key in keys:
        late = [parent.key for parent in graph.node_map[key].parents if parent.key not in seen]
        if late:
            raise ExportError(
                f"{key[0]}.{key[1]} was exported before {late[0][0]}.{late[0][1]}, "
                "on which it now depends."
            )
        seen.add(key)


def _link(migration: Migration) -> Link:
    if migration.replaces:
        raise ExportError(
            f"{migration} is a squashed migration: Alembic would need both its own history and "
            "the one it replaces. Keep the original migrations."
        )
    app, name = migration.app_label, migration.name
    return Link(revision_of(app, name), app, name, _source(migration) if is_ours(migration) else "")


def _source(migration: Migration) -> str:
    file = inspect.getfile(type(migration))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
