"""First minutes that cannot be: each ends with a status and one sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.first_run.clones import ORDINARY, ROOT, assert_says, clone_to, stranger_env

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("first_run")]
DEMO = ("bash", "deploy/demo.sh", "--exit", "--files", "60", "--large-mib", "2")


def apart(script: str, *flags: str) -> list[str]:
    """Run what follows in namespaces of its own, once some lines have prepared them."""
    unshare = ["unshare", "--mount", "--propagation", "private", *flags]
    return [*unshare, "sh", "-euc", f'{script}\nexec "$@"', "sh"]


needs_mounts = pytest.mark.skipif(
    not (ROOT and subprocess.run([*apart(""), "true"], capture_output=True).returncode == 0),
    reason="only root, where it may mount, can have a file system of that kind",
)


@needs_mounts
@pytest.mark.parametrize(
    "limit",
    ["size=64k", pytest.param("nr_inodes=1", marks=pytest.mark.nightly)],
    ids=["bytes", "files"],
)
@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "ordinary"])
def test_the_demo_asks_for_room_when_tmp_is_full(clone_of, limit, ordinary):
    clone = clone_of("full", ordinary=ordinary)
    fill = f"mount -t tmpfs -o mode=1777,{limit} none /tmp\ncat /dev/zero >/tmp/full 2>&- || true"
    done = clone.run(*DEMO, before=apart(fill))
    assert_says(done, "/tmp/ketter-", "No space left on device", "make room in /tmp")
    assert clone.processes() == []


@needs_mounts
def test_the_demo_asks_for_another_file_system_when_this_one_runs_no_programs(place):
    clone = clone_to(place / "noexec")
    # The folder is what it was below the mount until it is entered once more.
    mount = (
        'cp -r . ../kept\nmount -t tmpfs -o noexec none .\ncd "$PWD"\n'
        "cp -r ../kept/. .\nrm -r ../kept"
    )
    done = clone.run(*DEMO, before=apart(mount))
    assert_says(done, "noexec", "clone Ketter to another file system")


@pytest.mark.skipif(not ROOT, reason="only root can take the network away")
def test_the_demo_asks_for_the_internet_when_pip_reaches_no_packages(place):
    clone = clone_to(place / "alone")
    clone.env = stranger_env(HOME=str(place), PIP_CONFIG_FILE="/dev/null", PIP_RETRIES="0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_NO_INDEX"):
        clone.env.pop(name, None)
    done = clone.run(*DEMO, before=["unshare", "--net"])
    assert_says(done, "pip could not install", "connect this machine to the internet")
    assert not (clone.folder / ".venv/ketter-unfinished").exists()


def shims(folder: Path, *, python: str = "") -> str:
    """A PATH with the system's programs but its Pythons; `python` is the only one."""
    folder.mkdir()
    folder.chmod(0o755)
    for program in sorted(Path("/usr/bin").iterdir()):
        if not program.name.startswith(("python", "apt")):
            (folder / program.name).symlink_to(program)
    if python:
        (folder / "python3").write_text(python)
        (folder / "python3").chmod(0o755)
    return str(folder)


def old_python() -> str:
    """A script that runs an older Python, a real one where there is one."""
    for minor in (10, 9, 8):
        installed = Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")
        for found in (shutil.which(f"python3.{minor}") or "", *map(str, installed)):
            if found and subprocess.run([found, "-c", ""], check=False).returncode == 0:
                return f'#!/bin/sh\nexec {found} "$@"\n'
    return "#!/bin/sh\ncase $2 in *print*) echo 3.10 ;; *) exit 1 ;; esac\n"


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (
            "older",
            ("Ketter needs Python 3.11 or newer, but ", "/path-older/python3 is 3.", "install"),
        ),
        ("none", ("Ketter needs Python 3.11 or newer, but found none: install it",)),
    ],
)
def test_the_demo_asks_for_python_3_11_when_python_is_older_or_missing(place, python, words):
    clone = clone_to(place / python)
    script = old_python() if python == "older" else ""
    done = clone.run(*DEMO, PATH=shims(place / f"path-{python}", python=script))
    assert_says(done, *words)
    assert not (clone.folder / ".venv").exists()


def test_the_demo_asks_for_the_venv_module_when_python_lacks_it(place, ordinary_home, venv):
    """As Debian's is before `apt install python3-venv`; an ordinary user is told that."""
    clone = clone_to(place / "bare", user=ORDINARY)
    real = (venv / "bin/python").resolve()
    script = f'#!/bin/sh\ncase $2 in *ensurepip*) exit 1 ;; esac\nexec {real} "$@"\n'
    done = clone.run(*DEMO, PATH=shims(place / "bare-path", python=script))
    assert_says(done, "python3 has no venv module: ", "install")


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
def test_the_demo_refuses_a_socket_folder_that_belongs_to_another_user(clone_of):
    clone = clone_of("planted", ordinary=True)
    clone.sockets.mkdir()
    os.chown(clone.sockets, 1, 1)
    try:
        done = clone.run(*DEMO)
        assert_says(done, f"{clone.sockets} belongs to another user", "KETTER_VAR_DIR")
        clone.sockets.rmdir()
        clone.sockets.symlink_to("/var/tmp")
        done = clone.run(*DEMO)
        assert_says(done, f"{clone.sockets} belongs to another user")
    finally:
        clone.sockets.unlink(missing_ok=True)


def test_the_demo_asks_for_a_writable_folder_when_its_own_is_read_only(clone_of):
    clone = clone_of("sealed", ordinary=True)
    clone.folder.chmod(0o555)
    done = clone.run(*DEMO)
    clone.folder.chmod(0o755)
    assert_says(done, "cannot be written to", "make room there, or clone Ketter to a folder of")
