"""Two engines side by side: this checkout's, and that of a commit."""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.machine import PROJECT, first_line

#: What of a tree is measured: it needs nothing beside it but the standard library.
_ENGINE = "engine"


def commit_of(name: str) -> str:
    """The commit's full name. Raises SystemExit if this repository has no such commit."""
    git = ["git", "-C", str(PROJECT), "rev-parse", "--verify", "--end-of-options"]
    found = first_line([*git, f"{name}^{{commit}}"])
    if not found or found.startswith("fatal:"):
        raise SystemExit(
            f"no commit {name} in {PROJECT}: name one that git knows here (a shallow clone "
            "knows few: git fetch --unshallow)."
        )
    return found


def lay_out_commit(commit: str, folder: Path) -> Path:
    """Put the commit's engine below `folder`, compiled; return the folder to run it in."""
    folder.mkdir()
    with tempfile.TemporaryFile() as archive:
        git = ["git", "-C", str(PROJECT), "archive", "--format=tar", commit, _ENGINE]
        subprocess.run(git, stdout=archive, check=True)
        archive.seek(0)
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive, check=True)
    return _ready(folder)


def lay_out_folder(project: Path, folder: Path) -> Path:
    """Put the engine as it is in `project` below `folder`, so that what is edited meanwhile
    does not matter; return the folder to run it in."""
    folder.mkdir()
    shutil.copytree(
        project / _ENGINE, folder / _ENGINE, ignore=shutil.ignore_patterns("__pycache__")
    )
    return _ready(folder)


def _ready(folder: Path) -> Path:
    # As Python does by itself with the first transfer, unless the environment forbids it.
    compileall.compile_dir(str(folder / _ENGINE), quiet=1)
    found = subprocess.run(
        [sys.executable, "-c", "import engine; print(engine.__file__)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.stdout.strip() != str(folder / _ENGINE / "__init__.py"):
        raise SystemExit(
            f"Python does not run the engine in {folder} but {found.stdout.strip() or 'none'}: "
            f"{' '.join(found.stderr.split())[-200:]}"
        )
    return folder
