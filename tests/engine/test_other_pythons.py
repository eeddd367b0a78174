"""Agents on each Python that a host may have, from 3.8 on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine import Endpoint, Mode, Request, Verify, errors
from engine.connect import bundle
from engine.types import HardLinks
from tests.rig.interrupted import MIB, build_large, build_many, staged, whole
from tests.rig.observers import Stop
from tests.rig.trees import assert_equal_trees

OLDEST, NEWEST = 8, 14
MINORS = range(OLDEST, NEWEST + 1)


def python(minor: int) -> str:
    """The path of that Python; skips the test if this machine does not have it."""
    name = f"python3.{minor}"
    # Where pyenv keeps them: as its variable has it, or beside the Python that runs this.
    roots = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"]
    roots.append(Path(sys.base_prefix).parent)
    found = [path for root in roots for path in root.glob(f"3.{minor}.*/bin/{name}")]
    found += [Path(path) for path in (shutil.which(name),) if path]
    for path in map(str, found):
        asked = [path, "-c", "import sys; print(sys.version_info[1])"]
        # pyenv's own `python3.8` is there even if it starts none.
        if subprocess.run(asked, capture_output=True, check=False).stdout.strip() == (
            str(minor).encode()
        ):
            return path
    pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("minor", MINORS)
def test_every_agent_module_can_be_imported_on_each_supported_python(minor: int) -> None:
    names = {*bundle.modules("source"), *bundle.modules("target")}
    text = (
        "import importlib, sys, types\n"
        # Without `engine` itself, which is the worker's and needs a newer Python.
        "sys.modules['engine'] = types.ModuleType('engine')\n"
        f"sys.modules['engine'].__path__ = [{str(Path(engine.__file__).parent)!r}]\n"
        f"for name in {sorted(names)!r}: importlib.import_module('engine.agent.' + name)\n"
        "assert 'typing' not in sys.modules, 'typing is imported, see engine/agent/typed.py'\n"
    )
    ended = subprocess.run(
        [python(minor), "-I", "-S", "-B", "-c", text], capture_output=True, check=False
    )

    assert (ended.returncode, ended.stderr.decode()) == (0, "")


def start_agents_with(executable: str, patch: pytest.MonkeyPatch) -> None:
    """Start the agents on this machine with another Python, as far hosts do."""
    made = bundle.program
    patch.setattr(sys, "executable", executable)
    # With the sources: another Python cannot run the compiled code of this one.
    patch.setattr(bundle, "program", lambda here, of_target: made(False, of_target))


@pytest.mark.parametrize("minor", MINORS)
def test_an_interrupted_move_is_resumed_by_agents_on_each_supported_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minor: int
) -> None:
    start_agents_with(python(minor), monkeypatch)
    build_many(tmp_path / "a", 60)
    build_large(tmp_path / "a" / "large.mov", 24 * MIB)
    os.link(tmp_path / "a" / "large.mov", tmp_path / "a" / "again.mov")
    expected = whole(tmp_path / "a")
    request = Request(
        source=Endpoint("/", str(tmp_path / "a").lstrip("/")),
        target=Endpoint("/", str(tmp_path / "b").lstrip("/")),
        transfer_id="other-python",
        mode=Mode.MOVE,
        verify=Verify.READBACK,
        hard_links=HardLinks.KEEP,
        special_bits=True,
        preallocate=True,
        filters=(("exclude", "*.tmp[0-9]"),),
        bwlimit=40 * MIB,
    )
    with pytest.raises(errors.Interrupted):
        engine.run(request, Stop(lambda: staged(tmp_path / "b") > 4 * MIB))

    report = engine.run(request._replace(resume=True, attempt=2, bwlimit=0))

    assert report.status == "done"
    assert report.bytes_resumed > 0
    assert report.files_removed == report.files
    assert_equal_trees(expected, whole(tmp_path / "b"))


def test_the_python_that_runs_the_tests_is_a_supported_one() -> None:
    assert sys.version_info[1] in MINORS
