"""Places for fresh clones, and the first of them, whose .venv the others take over."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.first_run.clones import ORDINARY, ROOT, Clone, Venvs, clone_to, stranger_env

#: Below no user's home, on a disk, and not in /tmp, which some tests fill.
PLACE = "/var/tmp"


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder that every user may enter; all clones of the run are below it."""
    folder = Path(tempfile.mkdtemp(prefix="ketter-first-", dir=PLACE))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def closed_home(place: Path) -> Path:
    """A home that only its owner may enter, as root's is on Debian."""
    home = place / "root"
    home.mkdir(mode=0o700)
    return home


@pytest.fixture(scope="session")
def first(closed_home: Path) -> tuple[Clone, subprocess.CompletedProcess[str]]:
    """A clone in a closed home, and what its first demo said; it has made .venv from nothing."""
    clone = clone_to(closed_home / "ketter")
    clone.env = stranger_env(HOME=str(closed_home))
    return clone, clone.demo()


@pytest.fixture(scope="session")
def venv(first: tuple[Clone, subprocess.CompletedProcess[str]]) -> Path:
    """The .venv that the first demo made."""
    clone, done = first
    if not (clone.folder / ".venv" / "ketter-installed").exists():
        pytest.fail(f"the first demo made no .venv:\n{done.stdout}")
    return clone.folder / ".venv"


@pytest.fixture(scope="session")
def venvs(venv: Path, place: Path) -> Venvs:
    """Copies of that .venv."""
    return Venvs(venv, place)


@pytest.fixture(scope="session")
def ordinary_home(place: Path) -> Path:
    """The home of an ordinary user, closed to others."""
    home = place / "home"
    home.mkdir(mode=0o700)
    if ORDINARY is not None:
        os.chown(home, ORDINARY, ORDINARY)
    return home


@pytest.fixture(scope="session")
def python_for_all(venv: Path) -> None:
    """Skip where .venv's Python is closed to an ordinary user."""
    if ORDINARY is None:
        return
    python = os.path.realpath(venv / "bin" / "python")
    argv = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    reached = subprocess.run([*argv, python, "-c", ""], capture_output=True, check=False)
    if reached.returncode != 0:
        pytest.skip(f"no ordinary user can run {python}: apt install python3")


@pytest.fixture
def clone_of(
    place: Path, ordinary_home: Path, venvs: Venvs, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Clone]]:
    """Make a clone with an installed .venv in a folder of the user's home, removed afterwards."""
    made: list[tuple[Clone, Path, bool]] = []

    def make(
        name: str, *, ordinary: bool, closed: bool = False, parent: Path | None = None
    ) -> Clone:
        if ordinary:
            request.getfixturevalue("python_for_all")
        elif not ROOT:
            pytest.skip("only root can be root")
        home = ordinary_home if ordinary else place
        parent = parent or home
        clone = clone_to(parent / name, user=ORDINARY if ordinary else None)
        made.append((clone, parent / name.split("/")[0], closed))
        if clone.user is not None:
            for folder in list(clone.folder.relative_to(parent).parents)[:-1]:
                os.chown(parent / folder, clone.user, clone.user)
        clone.env = stranger_env(HOME=str(home))
        venvs.lend(clone, closed=closed)
        return clone

    yield make
    for clone, folder, closed in made:
        if clone.folder.exists():
            venvs.take_back(clone, closed=closed)
            shutil.rmtree(folder)
        shutil.rmtree(clone.sockets, ignore_errors=True)  # There where the test has failed.
