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
from engine import Endpoint
from engine.agent import context
from engine.agent.target import commands as targets
from engine.agent.target.staging import folder
from engine.agent.target.staging.folder import Staging
from engine.agent.tree import resolve
from engine.agent.wire import MAGIC, AgentError
from engine.connect import bundle, ssh
from engine.connect.ssh_errors import SshEnding
from engine.types import SshAccess

AGENT = Path(bundle.__file__).parent.parent / "agent"
#: Bytes that travel to every host before each connection's first answer.
BUDGET = {False: 180_000, True: 350_000}
IMPORTS = {
    "_blake2",
    "__future__", "array", "collections", "contextlib", "ctypes", "errno", "fcntl", "functools",
    "gc", "hashlib", "itertools", "json", "os", "re", "select", "stat", "struct", "sys",
    "threading", "time", "traceback", "zlib",
}  # fmt: skip


def test_the_agent_program_stays_within_its_size_budget_and_its_list_of_imports() -> None:
    for of_target, most in BUDGET.items():
        assert len(bundle.program(here=False, of_target=of_target)) <= most
    found = set(AGENT.rglob("*.py")) - set(AGENT.rglob("__init__.py"))
    names = {".".join(path.relative_to(AGENT).with_suffix("").parts) for path in found}
    assert names == {*bundle.modules("source"), *bundle.modules("target")}
    imported = set()
    for path in found:
        for node in at_runtime(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                imported.add(node.module.partition(".")[0])
    assert imported - {"engine"} == IMPORTS


def at_runtime(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module, without what only a type checker reads."""
    yield node
    if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        for child in ast.iter_child_nodes(node):
            yield from at_runtime(child)
    else:
        for child in node.orelse:
            yield from at_runtime(child)


@pytest.mark.parametrize("of_target", [False, True])
def test_the_agent_program_has_every_module_it_imports_and_none_of_the_other_end(
    of_target: bool,
) -> None:
    head, _, _ = zlib.decompress(bundle.program(True, of_target)).partition(b"\n")
    has = {name[len("engine.agent.") :] for name in json.loads(head)["modules"]}

    other = "source" if of_target else "target"
    assert not any(name.startswith(f"{other}.") for name in has)
    for name in has - {"main"}:  # The main one imports the role that a command is for.
        assert modules_of_ours(name) <= has, f"{name} cannot import what it needs"


def modules_of_ours(name: str) -> set[str]:
    """The agent's modules that one of them imports."""
    found = set()
    path = AGENT.joinpath(*name.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.startswith("engine.agent"):
            below = AGENT.joinpath(*module.split(".")[2:])
            names = [alias.name for alias in node.names] if below.is_dir() else [""]
            found |= {f"{module}.{name}".strip(".")[len("engine.agent.") :] for name in names}
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
def test_the_bootstrap_starts_only_the_program_that_its_token_announces(
    here: bool, of_target: bool
) -> None:
    token, data = bundle.new_token(), bundle.program(here, of_target)
    program = bundle.sealed(data, token)
    spoilt = program[:-1] + bytes([program[-1] ^ 1])

    assert MAGIC in start(program, bundle.bootstrap(token)).stderr
    for damaged in (spoilt, bundle.sealed(data, bundle.new_token())):
        refused = start(damaged, bundle.bootstrap(token))
        assert bundle.DAMAGED.encode() in refused.stderr
        assert MAGIC not in refused.stderr


def test_the_agent_compiles_its_source_on_a_python_with_other_bytecode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = bundle.new_token()
    monkeypatch.setattr(bundle, "MAGIC_NUMBER", b"none")
    monkeypatch.setattr(bundle, "code_of", lambda *_: b"no code")
    bundle.program.cache_clear()
    try:
        program = bundle.sealed(bundle.program(here=False, of_target=True), token)
        assert MAGIC in start(program, bundle.bootstrap(token)).stderr
    finally:
        bundle.program.cache_clear()


def test_the_remote_command_has_no_characters_special_to_a_shell() -> None:
    command = bundle.remote_command(bundle.new_token())

    assert command.count("'") == 2
    assert not set(command) & set("\n$`\\!;&|<>*?{}~#")


def test_a_remote_python_that_is_too_old_is_reported_as_no_python() -> None:
    text = bundle.bootstrap(bundle.new_token()).replace("(3, 8)", "(99, 0)")

    ended = start(b"", text)

    assert ended.returncode == 1
    assert bundle.TOO_OLD.encode() in ended.stderr
    client = ssh.SshClient(SshAccess("host"))
    error = SshEnding(client).of_start(1, ended.stderr.decode())
    client.files.remove()
    assert error.code == "NO_PYTHON"


@pytest.mark.parametrize(
    "path", ["..", "a/../..", "/etc", "a//b", "./a", "a/.", "a\0b", "out", "out/x"]
)
def test_resolve_refuses_a_path_that_leaves_its_root(tmp_path: Path, path: str) -> None:
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


def test_a_lower_attempt_cannot_start_publish_or_remove_once_a_higher_one_started(
    target: int,
) -> None:
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


def test_a_higher_attempt_removes_the_tree_that_a_lower_one_staged(
    target: int, tmp_path: Path
) -> None:
    first = place(target, 1)
    first.prepare([])
    assert first.tree is not None
    place(target, 2).prepare([])

    with pytest.raises(FileNotFoundError):
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=first.tree.fd)


def test_a_lower_attempt_cannot_publish_after_the_staging_folder_was_removed(
    target: int, tmp_path: Path
) -> None:
    first, second = place(target, 1), place(target, 2)
    first.prepare([])
    second.prepare([])
    second.remove()

    with pytest.raises(AgentError), first.publishing():
        pytest.fail("an old attempt got through the gate")
    assert os.listdir(tmp_path) == []


def test_removing_a_staging_folder_fails_while_another_run_works_in_it(
    target: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LEAVING_SECONDS", 0.1)
    place(target, 1).prepare([])

    with pytest.raises(AgentError, match="another run"):
        place(target, 1).remove()

    assert (tmp_path / ".ketter-job.part" / "a1").is_dir()


@pytest.mark.parametrize("reach", ["fetch_host_key", "probe"])
def test_a_missing_ssh_program_is_reported_and_leaves_no_files(
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


def test_a_helper_that_was_fenced_out_is_over_and_cannot_attach_again(
    target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "FENCE_OUT_SECONDS", 0.1)
    lead, helper, other = place(target, 1), place(target, 1), place(target, 1)
    lead.prepare([])
    helper.attach("h1")
    other.attach("h2")

    with pytest.raises(AgentError, match="does not end"):
        lead.fence_out("h1")  # It still holds its lock: perhaps it writes.

    assert (helper.is_over(), other.is_over(), lead.is_over()) == (True, False, False)
    with pytest.raises(AgentError, match="shut out"):
        place(target, 1).attach("h1")


def test_a_helper_of_an_older_attempt_cannot_attach_after_a_newer_one_started(target: int) -> None:
    place(target, 1).prepare([])
    place(target, 2).prepare([])

    with pytest.raises(FileNotFoundError):
        place(target, 1).attach("h2")


@pytest.mark.parametrize("label", ["../gate", "a/b", "1.end"])
def test_a_helper_label_that_is_a_path_is_refused(target: int, label: str) -> None:
    place(target, 1).prepare([])
    with pytest.raises(AgentError, match="letters and digits"):
        place(target, 1).attach(label)


def test_the_file_mode_probe_writes_to_the_staging_folder_and_not_to_the_staged_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second stream that is let in while the first one publishes would be a file too many."""
    tried: list[str] = []

    def try_it(fd: int) -> int:
        tried.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        return 0

    monkeypatch.setattr(targets, "made_as", try_it)
    end = targets.Target(context.Context())

    end.do_stage(str(tmp_path), "b", "test", 1, {}, b"")

    assert tried == [".ketter-test.part"]
