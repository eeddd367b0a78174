"""Every suite has a lane and a share of the 40 minutes; CONTRIBUTING.md says the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import lanes
from tests.lanes import ALL, FAST, LIMIT_MINUTES, NIGHTLY, SHARES, SUITES, WHOLE, lanes_of
from tests.rig.project import PROJECT

ROOMS = ("engine", "jobs", "portals", "site", "dku", "deploy")
MODULES = sorted(path.relative_to(PROJECT) for path in PROJECT.glob("tests/**/test_*.py"))


def test_every_folder_of_tests_is_listed_as_a_suite():
    missing = {lanes.suite_of(path.as_posix()) for path in MODULES} - SUITES.keys()
    assert missing == set(), "give each a row in tests/lanes.py and in CONTRIBUTING.md"


def test_every_suite_has_a_folder_unless_its_share_is_still_to_come():
    """Only a suite that comes with its whole share need not be there yet."""
    absent = {suite for suite in SUITES if not (PROJECT / suite).is_dir()}
    to_come = {
        suite
        for share in SHARES.values()
        for suite in share.suites
        if absent.issuperset(share.suites)
    }
    assert absent - to_come == set()


def test_every_module_in_the_fast_lane_exists():
    named = {
        f"{suite}/{name}.py" for suite, row in SUITES.items() for name in row.fast if name != ALL
    }
    assert named - {path.as_posix() for path in MODULES} == set()


def test_the_fast_lane_covers_every_room():
    for room in ROOMS:
        assert SUITES[f"tests/{room}"].fast, room


def test_contributing_shows_the_tables_of_suites_and_shares():
    text = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
    assert "\n".join(lanes.tables()) in text, "run python -m tests.lanes and take its lines"


def test_the_shares_fit_into_the_limit_of_minutes():
    assert sum(share.minutes for share in SHARES.values()) <= LIMIT_MINUTES


def test_every_suite_has_one_share_and_keeps_to_it():
    shared = [suite for share in SHARES.values() for suite in share.suites]
    assert sorted(shared) == sorted(SUITES)
    for name, share in SHARES.items():
        minutes = sum(SUITES[suite].minutes for suite in share.suites)
        assert minutes <= share.minutes + 0.01, name


def test_the_suites_that_exist_fit_into_the_limit_of_minutes():
    used = [share for share in SHARES.values() if share.suites]
    minutes = sum(SUITES[suite].minutes for share in used for suite in share.suites)
    assert minutes + SHARES["lint and types"].minutes <= LIMIT_MINUTES


@pytest.mark.parametrize(
    ("path", "markers", "needs_rig", "runs_in"),
    [
        ("tests/portals/test_new.py", set(), False, {FAST, WHOLE, NIGHTLY}),
        ("tests/portals/test_new.py", {"slow"}, False, {WHOLE, NIGHTLY}),
        ("tests/portals/test_new.py", set(), True, {WHOLE, NIGHTLY}),
        ("tests/engine/test_new.py", set(), False, {WHOLE, NIGHTLY}),
        ("tests/engine/test_new.py", {"fast"}, False, {FAST, WHOLE, NIGHTLY}),
        ("tests/engine/test_new.py", {"fast", "slow"}, False, {WHOLE, NIGHTLY}),
        ("tests/engine/test_new.py", {"nightly", "fast"}, False, {NIGHTLY}),
        ("tests/engine/deeper/test_new.py", set(), False, {WHOLE, NIGHTLY}),
        ("tests/without_a_row/test_sizes.py", set(), False, {WHOLE, NIGHTLY}),
        ("tests/test_sizes.py", set(), False, {FAST, WHOLE, NIGHTLY}),
        ("tests/test_new.py", set(), False, {WHOLE, NIGHTLY}),
    ],
)
def test_the_lanes_of_a_test_follow_from_its_module_its_marks_and_its_rig(
    path, markers, needs_rig, runs_in
):
    assert lanes_of(path, markers, needs_rig) == runs_in


@pytest.mark.parametrize(
    ("path", "suite"),
    [
        ("tests/test_new.py", "tests"),
        ("tests/engine/test_new.py", "tests/engine"),
        ("tests/engine/deeper/test_new.py", "tests/engine"),
        ("tests/without_a_row/test_new.py", "tests/without_a_row"),
    ],
)
def test_a_module_belongs_to_the_nearest_folder_that_is_a_suite(path, suite):
    assert lanes.suite_of(path) == suite


@pytest.mark.slow
def test_pytest_selects_the_tests_that_the_lanes_list():
    fast, whole, nightly = (collected(lane) for lane in (FAST, WHOLE, NIGHTLY))
    assert fast < whole < nightly
    marked = {path.as_posix() for path in MODULES if "mark.fast" in path.read_text("utf-8")}
    unlisted = {node.partition("::")[0] for node in fast} - marked
    assert [module for module in unlisted if not lanes.is_listed(module)] == []
    modules = {node.partition("::")[0] for node in fast}
    for suite, row in SUITES.items():
        for name in row.fast:
            assert name == ALL or f"{suite}/{name}.py" in modules, f"nothing of {name} is fast"
    assert any("test_soak" in node for node in nightly - whole)


def collected(lane: str) -> set[str]:
    """The tests that pytest would run in a lane."""
    line = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--lane", lane]
    ended = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return {line for line in ended.stdout.splitlines() if "::" in line}


TESTS_OF_A_LANE = """
import pytest

from tests.rig.sshd import Sshd


def test_with_an_sshd_of_its_own():
    with Sshd():
        pass


@pytest.mark.nightly
def test_of_the_night():
    pass


def test_with_the_sshd_of_the_run(sshd):
    pass
"""


@pytest.mark.slow
def test_the_fast_lane_refuses_an_sshd_and_deselects_tests_of_other_lanes(tmp_path):
    """As an ordinary run does it, with a module of its own."""
    module = tmp_path / "test_made.py"
    module.write_text(
        TESTS_OF_A_LANE.replace("\n\ndef test_with", "\n\n@pytest.mark.fast\ndef test_with")
    )
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--lane", FAST]
    line += ["-c", str(PROJECT / "pyproject.toml"), str(module)]
    ended = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert "1 failed, 2 deselected" in ended.stdout, ended.stdout + ended.stderr
    assert "the fast lane starts no Sshd" in ended.stdout


TOGETHER = ["-n", "3", "--dist", "loadgroup"]


@pytest.mark.parametrize(
    ("arguments", "lane", "given"),
    [
        ([], "", [*TOGETHER, "--durations=40", "--durations-min=5"]),
        (["fast"], "fast", [*TOGETHER, "--lane", "fast"]),
        (["nightly", "-x"], "nightly", [*TOGETHER, "--lane", "nightly", "-x"]),
        (["tests/engine", "-x"], "", ["tests/engine", "-x"]),
        (["-k", "fast"], "", ["-k", "fast"]),
    ],
)
def test_the_test_script_passes_the_lane_on_to_pytest(arguments, lane, given, tmp_path):
    deploy = tmp_path / "my clips" / "deploy"
    deploy.mkdir(parents=True)
    (deploy / "test.sh").write_bytes((PROJECT / "deploy" / "test.sh").read_bytes())
    (deploy / "_lib.sh").write_text(
        'need_system_packages() { echo "packages:$1"; }\nneed_venv() { echo "venv:$1"; }\n'
    )
    python = tmp_path / "my clips" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    ended = subprocess.run(
        ["bash", str(deploy / "test.sh"), *arguments], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines() == [f"packages:{lane}", "venv:dev", "-m", "pytest", *given]


@pytest.mark.parametrize("lane", ["fast", ""])
def test_the_scripts_ask_for_an_ssh_server_and_gettext_only_outside_the_fast_lane(lane):
    script = (
        ". deploy/_lib.sh; is_root() { return 1; }; have_sbin() { return 1; }; "
        f"command() {{ return 1; }}; need_system_packages {lane}"
    )
    ended = subprocess.run(
        ["bash", "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert "openssh-client" in ended.stderr
    for package in ("openssh-server", "gettext"):
        assert (package in ended.stderr) is (lane == ""), package
