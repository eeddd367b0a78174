"""First minutes that end in DONE: by whom, where, and in which surroundings."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.first_run.clones import ROOT, assert_done, assert_nothing_left, assert_says

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("first_run")]

SPACES = "my clips/ketter"
LETTERS = "Übergabe 日本 журнал/кеттер"
LONG = "/".join(["a folder of some forty letters or so"] * 4) + "/ketter"
ODD = "it's 100% done & (é) #1, [a] *?; ~x=y|z <w>/ketter"


@pytest.mark.skipif(not ROOT, reason="only root can be root")
def test_the_demo_makes_a_venv_and_succeeds_for_root_in_a_closed_home(first, closed_home):
    clone, done = first
    assert_done(clone, done)
    assert "making .venv with" in done.stdout
    assert "WARNING" not in done.stdout
    assert stat.S_IMODE(closed_home.stat().st_mode) == 0o700
    data = clone.folder / "var/postgres/data"
    assert data.stat().st_uid not in {0, os.stat("/").st_uid}


@pytest.fixture
def opt() -> Iterator[Path]:
    """A folder in /opt."""
    folder = Path(tempfile.mkdtemp(prefix="ketter-first-", dir="/opt"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)  # With the .venv that lies there: it may be on another disk.


@pytest.mark.skipif(not ROOT, reason="only root writes in /opt")
def test_the_demo_succeeds_for_root_in_opt(clone_of, opt):
    clone = clone_of("ketter", ordinary=False, parent=opt)
    assert_done(clone, clone.demo())


@pytest.mark.parametrize(
    "name",
    ["ketter", SPACES, LETTERS, LONG],
    ids=["plain", "spaces", "other letters", "longer than a socket's path"],
)
def test_the_demo_succeeds_for_an_ordinary_user_whatever_the_path(clone_of, name):
    clone = clone_of(name, ordinary=True)
    assert_done(clone, clone.demo())
    assert clone.folder.stat().st_uid == (clone.folder / "var/postgres/data").stat().st_uid


@pytest.mark.skipif(not ROOT, reason="only root can be root")
def test_the_demo_succeeds_for_root_with_umask_077(clone_of):
    clone = clone_of("umask", ordinary=False, closed=True)
    clone.umask = 0o077
    assert_done(clone, clone.demo())


def test_the_demo_succeeds_without_home_and_lang(clone_of):
    clone = clone_of("no home", ordinary=True)
    for name in ("HOME", "LANG"):
        clone.env.pop(name)
    assert_done(clone, clone.demo())


#: Surroundings that are odd, each by what it sets.
SURROUNDINGS = {
    "plain": {},
    "language C": {"LANG": "C", "LC_ALL": "C"},
    "another language": {"LC_ALL": "de_DE.ISO-8859-1"},
    "home that is not there": {"HOME": "/nonexistent"},
    "TMPDIR that is not there": {"TMPDIR": "/nonexistent/tmp"},
    "Postgres' variables": {"PGPORT": "5433", "PGUSER": "eva", "PGDATABASE": "x", "PGDATA": "/x"},
    "a proxy": {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
}


@pytest.mark.nightly
@pytest.mark.parametrize("ordinary", [True, False], ids=["ordinary", "root"])
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=["umask 022", "umask 077"])
@pytest.mark.parametrize(
    "name",
    ["ketter", SPACES, LETTERS, LONG, ODD],
    ids=["plain", "spaces", "other letters", "long", "odd letters"],
)
def test_the_demo_succeeds_for_every_user_with_every_path_and_umask(
    clone_of, closed_home, ordinary, umask, name
):
    parent = None if ordinary else closed_home
    clone = clone_of(
        f"all/{name}", ordinary=ordinary, closed=umask == 0o077 and not ordinary, parent=parent
    )
    clone.umask = umask
    assert_done(clone, clone.demo())


@pytest.mark.nightly
@pytest.mark.parametrize("ordinary", [True, False], ids=["ordinary", "root"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_the_demo_succeeds_for_every_user_in_every_environment(clone_of, ordinary, surroundings):
    clone = clone_of(f"in/{LETTERS}", ordinary=ordinary)
    clone.env |= SURROUNDINGS[surroundings]
    assert_done(clone, clone.demo())


@pytest.mark.skipif(not ROOT, reason="only root has abilities to lose")
def test_the_demo_succeeds_for_root_in_a_container_with_few_capabilities(clone_of, closed_home):
    """As Docker starts one: no look into every folder, but passing any of them."""
    clone = clone_of("few", ordinary=False, parent=closed_home)
    kept = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw"
    kept += " sys_chroot mknod audit_write setfcap"
    bound = ",".join(["-all", *(f"+{name}" for name in kept.split())])
    argv = ["bash", "deploy/demo.sh", "--exit", "--files", "60", "--large-mib", "2"]
    done = clone.run(*argv, before=["setpriv", f"--bounding-set={bound}"])
    assert_done(clone, done)


@pytest.mark.skipif(not ROOT, reason="only root has abilities to lose")
def test_the_demo_refuses_root_without_the_capability_to_open_a_closed_home(clone_of, closed_home):
    clone = clone_of("none", ordinary=False, parent=closed_home)
    bound = "-all,+chown,+fowner,+setgid,+setuid,+kill"
    argv = ["bash", "deploy/demo.sh", "--exit", "--files", "60", "--large-mib", "2"]
    done = clone.run(*argv, before=["setpriv", f"--bounding-set={bound}"])
    assert_says(done, "start Ketter as an ordinary user, or set DATABASE_URL")
    assert_nothing_left(clone)
