"""A tree against another one, for real: a regression is found, none is made up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import against, against_report
from tests.bench.against import Against, Trial
from tests.bench.cases import CASES
from tests.bench.machine import PROJECT
from tests.bench.paired import Rules, Verdict
from tests.bench.run import State

SMALL = CASES["small"]
#: Far from the limit on either side, so that a busy machine does not matter.
QUICK = ["--quick", "--scale", "0.001", "--rounds", "3", "--most", "3", "--percent", "40"]


def git(repository: Path, *arguments: str) -> str:
    """Run git with an author of this test's own; return its output."""
    who = ["-c", "user.name=K", "-c", "user.email=k@localhost", "-c", "commit.gpgsign=false"]
    ended = subprocess.run(
        ["git", "-C", str(repository), *who, *arguments], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this engine and this benchmark, with one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed: install it, a comparison with a commit needs it")
    folder = tmp_path_factory.mktemp("repository")
    for room in ("engine", "tests/bench", "tests/rig"):
        shutil.copytree(PROJECT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "base")
    return folder


def compared(repository: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Compare the checkout with its commit."""
    line = [sys.executable, "-m", "tests.bench", "against", *arguments, *QUICK]
    line += ["--folder", str(folder), "--json", str(folder / "figures.json")]
    return subprocess.run(
        line, cwd=repository, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_an_unchanged_checkout_is_not_slower_than_its_commit(repository, tmp_path):
    ended = compared(repository, tmp_path, "HEAD", "--case", "local_small")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Nothing is slower by more than 40%" in ended.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["base"] == git(repository, "rev-parse", "HEAD")
    (case,) = figures["cases"]
    assert case["verdict"] == "no slower"
    assert len(case["wall"]["ratios"]) == 3
    order = "".join(trial["tree"][0] for trial in figures["trials"])
    assert order == "bh" + "bhhb" + "hbbh" + "bhhb"
    if sys.platform == "linux":
        assert min(trial["processor"] for trial in figures["trials"]) > 0.03
    # Neither the data nor the two trees remain.
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_a_regression_made_on_purpose_is_found(repository, tmp_path):
    module = repository / "engine" / "cli" / "__main__.py"
    before = module.read_text()
    marked = "    words = list(sys.argv[1:]"
    assert before.count(marked) == 1
    module.write_text(before.replace(marked, f"    __import__('time').sleep(1)\n{marked}"))
    git(repository, "commit", "--quiet", "-a", "-m", "slower")
    try:
        ended = compared(repository, tmp_path, "HEAD~1", "--case", "local_small,start")
    finally:
        git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "**Slower**" in ended.stdout
    assert "- `local_small`: wall time +" in ended.stdout
    assert "- `start`: wall time +" in ended.stdout


def test_the_benchmark_names_a_commit_that_does_not_exist(repository, tmp_path):
    ended = compared(repository, tmp_path, "no-such-branch")
    assert ended.returncode == 1
    assert "no commit no-such-branch in " in ended.stderr
    assert list(tmp_path.iterdir()) == []


def trials(*seconds: tuple[str, float], state: State = State.DONE) -> list[Trial]:
    """Trials of `small`, each with a round of its own for every two."""
    return [
        Trial(1 + number // 2, "small", tree, state, each, each, 0.0)
        for number, (tree, each) in enumerate(seconds)
    ]


def with_trials(tmp_path: Path, made: list[Trial]) -> Against:
    """A comparison that has these trials behind it."""
    return Against(
        cases=[SMALL],
        folder=tmp_path,
        scale=1,
        limit=60,
        trees={},
        rules=Rules(first=2, most=3),
        trials=made,
    )


def test_the_comparison_of_commits_takes_ratios_within_a_round(tmp_path):
    made = trials(("base", 1.0), ("here", 1.5), ("here", 10.0), ("base", 10.0))
    wall, processor = with_trials(tmp_path, made).figures(SMALL)
    assert wall.ratios == processor.ratios == (1.5, 1.0)


def test_a_single_delayed_run_does_not_move_the_wall_time_ratio_of_its_round(tmp_path):
    made = [
        Trial(1, "small", tree, State.DONE, seconds, seconds, 0.0)
        for tree, each in {"base": (1.0, 1.0, 1.0, 1.0), "here": (1.0, 1.0, 7.0, 1.0)}.items()
        for seconds in each
    ]
    wall, processor = with_trials(tmp_path, made).figures(SMALL)
    assert (wall.ratios, processor.ratios) == ((1.0,), (2.5,))


def test_a_round_that_was_cut_short_does_not_count(tmp_path):
    made = trials(("base", 1.0), ("here", 1.5), ("base", 1.0))
    assert with_trials(tmp_path, made).figures(SMALL)[0].ratios == (1.5,)
    outcome = with_trials(tmp_path, made).outcome(SMALL)
    assert (outcome.verdict, outcome.why) == (Verdict.UNMEASURED, "1 rounds of 2 were run")


@pytest.mark.parametrize(
    ("tree", "verdict", "status"), [("here", Verdict.FAILED, 1), ("base", Verdict.UNMEASURED, 3)]
)
def test_a_run_that_fails_ends_its_case(tree, verdict, status, tmp_path):
    made = trials(("base", 1.0), ("here", 1.0)) + trials((tree, 1.0), state=State.FAILED)
    comparison = with_trials(tmp_path, made)
    assert comparison.goes_on(SMALL) is False
    assert comparison.outcome(SMALL).verdict is verdict
    assert against_report.status([comparison.outcome(SMALL)]) == status
    assert f"{tree}, round 1: failed" in against_report.as_markdown(comparison, MACHINE, "f33cc75")


def test_the_report_names_an_unmeasured_case_and_how_busy_the_machine_was(tmp_path):
    made = trials(
        ("base", 1.0), ("here", 1.4), ("here", 1.0), ("base", 1.4), ("base", 1), ("here", 1)
    )
    comparison = with_trials(tmp_path, made)
    shown = against_report.as_markdown(comparison, MACHINE, "f33cc75")
    assert against_report.status([comparison.outcome(SMALL)]) == 3
    assert "- `small`: after 3 rounds the wall time's ratio lies between 0.714 and 1.400" in shown
    assert "others kept 0.00 processors busy meanwhile" in shown
    assert "Nothing is slower" not in shown


def test_a_short_case_runs_more_than_once_a_round(tmp_path):
    comparison = with_trials(tmp_path, [])
    comparison.trials = [Trial(against.WARMING, "small", "base", State.DONE, 0.3, 0.3, 0.0)]
    assert "".join(tree[0] for tree in comparison._turns(SMALL, 1)) == "bhhb" * 6
    assert "".join(tree[0] for tree in comparison._turns(SMALL, 2)) == "hbbh" * 6


COUNTED = """
import subprocess, sys
from tests.bench.costs import Meter
from tests.bench.run import wait_for_far_ends
from tests.rig.sshd import Sshd

burn = "import time\\nwhile time.process_time() < 0.3: pass"
with Sshd() as server:
    meter = Meter(server)
    before = meter.spent()
    # Its parent ends at once.
    subprocess.run(["sh", "-c", f"{sys.executable} -c '{burn}' &"], check=True)
    orphan = meter.spent()
    far = ["ssh", "-F", str(server.ssh_config), server.host, f"{sys.executable} -c '{burn}'"]
    subprocess.run(far, check=True)
    wait_for_far_ends(server)
    print(orphan - before, meter.spent() - orphan)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what others took")
def test_the_meter_counts_the_processor_time_of_orphans_and_of_what_sshd_starts():
    # In a process of its own: it becomes the parent of what is left behind.
    line = [sys.executable, "-c", COUNTED]
    ended = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=True)
    orphan, far = map(float, ended.stdout.split())
    assert 0.3 <= orphan < 0.6
    assert 0.3 <= far < 0.8


MACHINE = {
    "cores": 2,
    "cpu": "a processor",
    "memory_bytes": 2**30,
    "system": "Linux",
    "kernel": "6",
    "python": "3",
    "ssh": "OpenSSH",
    "folder": "/dev/shm",
    "file_system": "tmpfs",
    "load_at_start": 0.0,
    "date": "today",
    "ketter": "f33cc75",
}
