"""The program that goes to other hosts: what it is, what it refuses, how it is fenced."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine import Endpoint, bundle, ssh
from engine.agent import desk, staging
from engine.agent import target as targets
from engine.agent.staging import Staging
from engine.agent.tree import resolve
from engine.agent.wire import MAGIC, AgentError
from engine.types import SshAccess

AGENT = Path(bundle.__file__).parent / "agent"
#: Bytes that travel to every host before each connection's first answer.
BUDGET = {False: 135_000, True: 180_000}
IMPORTS = {
    "_blake2",
    "__future__", "array", "collections", "contextlib", "ctypes", "errno", "fcntl", "functools",
    "gc", "hashlib", "itertools", "json", "os", "re", "select", "stat", "struct", "sys",
    "threading", "time", "traceback", "typing", "unicodedata", "zlib",
}  # fmt: skip


def test_its_size_and_its_imports_are_pinned() -> None:
    for of_target, most in BUDGET.items():
        assert len(bundle.program(here=False, of_target=of_target)) <= most
    names = {path.stem for path in AGENT.glob("*.py")} - {"__init__"}
    assert names == set(bundle.MODULES)
    imported = set()
    for path in AGENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                imported.add(node.module.partition(".")[0])
    assert imported - {"engine"} == IMPORTS


@pytest.mark.parametrize("of_target", [False, True])
def test_each_end_has_all_that_it_imports_and_nothing_of_the_other(of_target: bool) -> None:
    head, _, _ = zlib.decompress(bundle.program(True, of_target)).partition(b"\n")
    has = {name.rpartition(".")[2] for name in json.loads(head)["modules"]}

    other = "source" if of_target else "target"
    assert other not in has
    for name in has - {"main"}:  # The main one imports the role that a command is for.
        assert modules_of_ours(name) <= has, f"{name} cannot import what it needs"


def modules_of_ours(name: str) -> set[str]:
    """The agent's modules that one of them imports."""
    found = set()
    for node in ast.walk(ast.parse((AGENT / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "engine.agent":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("engine.agent."):
            found.add((node.module or "").rpartition(".")[2])
    return found


def start(program: bytes, bootstrap: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", bootstrap],
        input=program,
        capture_output=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("of_target", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_it_runs_only_as_the_program_that_was_announced(here: bool, of_target: bool) -> None:
    token, data = bundle.new_token(), bundle.program(here, of_target)
    program = bundle.sealed(data, token)
    spoilt = program[:-1] + bytes([program[-1] ^ 1])

    assert MAGIC in start(program, bundle.bootstrap(token)).stderr
    for damaged in (spoilt, bundle.sealed(data, bundle.new_token())):
        refused = start(damaged, bundle.bootstrap(token))
        assert bundle.DAMAGED.encode() in refused.stderr
        assert MAGIC not in refused.stderr


def test_a_python_of_another_kind_compiles_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    token = bundle.new_token()
    monkeypatch.setattr(bundle, "MAGIC_NUMBER", b"none")
    monkeypatch.setattr(bundle, "code_of", lambda *_: b"no code")
    bundle.program.cache_clear()
    try:
        program = bundle.sealed(bundle.program(here=False, of_target=True), token)
        assert MAGIC in start(program, bundle.bootstrap(token)).stderr
    finally:
        bundle.program.cache_clear()


def test_its_remote_command_is_plain_for_every_shell() -> None:
    command = bundle.remote_command(bundle.new_token())

    assert command.count("'") == 2
    assert not set(command) & set("\n$`\\!;&|<>*?{}~#")


def test_an_older_python_is_told_so() -> None:
    text = bundle.bootstrap(bundle.new_token()).replace("(3, 8)", "(99, 0)")

    ended = start(b"", text)

    assert ended.returncode == 1
    assert bundle.TOO_OLD.encode() in ended.stderr
    files = ssh.SshFiles(SshAccess("host"))
    error = files.explain(1, ended.stderr.decode())
    files.remove()
    assert error.code == "NO_PYTHON"


@pytest.mark.parametrize(
    "path", ["..", "a/../..", "/etc", "a//b", "./a", "a/.", "a\0b", "out", "out/x"]
)
def test_a_path_never_leaves_its_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)

    with pytest.raises(AgentError) as caught:
        resolve(str(root), path)

    assert caught.value.code == "PATH_OUTSIDE_ROOT"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def place(target: int, attempt: int) -> Staging:
    return Staging(target, "job", attempt, "this machine")


def test_a_lower_attempt_can_neither_start_nor_publish(target: int) -> None:
    first, second = place(target, 1), place(target, 2)
    first.prepare([])
    second.prepare([])

    with pytest.raises(AgentError, match="newer attempt"), first.publishing():
        pytest.fail("an old attempt got through the gate")
    with pytest.raises(AgentError, match="newer attempt"):
        place(target, 1).prepare([])
    with pytest.raises(AgentError, match="newer attempt"):
        first.remove()
    with second.publishing():
        pass


def test_what_a_lower_attempt_staged_is_gone(target: int, tmp_path: Path) -> None:
    first = place(target, 1)
    first.prepare([])
    assert first.tree is not None
    place(target, 2).prepare([])

    with pytest.raises(FileNotFoundError):
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=first.tree.fd)


def test_after_the_clean_up_nobody_publishes(target: int, tmp_path: Path) -> None:
    first, second = place(target, 1), place(target, 2)
    first.prepare([])
    second.prepare([])
    second.remove()

    with pytest.raises(AgentError), first.publishing():
        pytest.fail("an old attempt got through the gate")
    assert os.listdir(tmp_path) == []


def test_it_does_not_clear_away_what_another_run_works_in(
    target: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "DYING_SECONDS", 0.1)
    place(target, 1).prepare([])

    with pytest.raises(AgentError, match="another run"):
        place(target, 1).remove()

    assert (tmp_path / ".ketter-job.part" / "a1").is_dir()


@pytest.mark.parametrize("reach", ["fetch_host_key", "probe"])
def test_a_missing_ssh_program_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reach: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    access = SshAccess("host")

    call = {
        "fetch_host_key": lambda: engine.fetch_host_key(access),
        "probe": lambda: engine.probe(Endpoint("/", "", access)),
    }

    with pytest.raises(engine.AgentFailed, match="ssh cannot be started"):
        call[reach]()

    assert list(tmp_path.iterdir()) == []


def test_a_helper_that_is_shut_out_can_neither_write_on_nor_come_again(
    target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "SHUT_OUT_SECONDS", 0.1)
    lead, helper, other = place(target, 1), place(target, 1), place(target, 1)
    lead.prepare([])
    helper.attach("h1")
    other.attach("h2")

    with pytest.raises(AgentError, match="does not end"):
        lead.shut_out("h1")  # It still holds its lock: perhaps it writes.

    assert (helper.is_over(), other.is_over(), lead.is_over()) == (True, False, False)
    with pytest.raises(AgentError, match="shut out"):
        place(target, 1).attach("h1")


def test_a_helper_of_an_older_attempt_cannot_come_any_more(target: int) -> None:
    place(target, 1).prepare([])
    place(target, 2).prepare([])

    with pytest.raises(FileNotFoundError):
        place(target, 1).attach("h2")


@pytest.mark.parametrize("label", ["../gate", "a/b", "1.end"])
def test_a_label_is_no_path(target: int, label: str) -> None:
    place(target, 1).prepare([])
    with pytest.raises(AgentError, match="letters and digits"):
        place(target, 1).attach(label)


def test_what_modes_files_get_is_not_tried_where_all_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second stream that is let in while the first one publishes would be a file too many."""
    tried: list[str] = []

    def try_it(fd: int) -> int:
        tried.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        return 0

    monkeypatch.setattr(targets, "made_as", try_it)
    end = targets.Target(desk.Desk())

    end.do_stage(str(tmp_path), "b", "test", 1, [False, False, False], b"")

    assert tried == [".ketter-test.part"]
