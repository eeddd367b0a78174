"""Pytest plugin: which tests run when. `--lane fast`, no option (the whole), `--lane nightly`.

Every folder of tests is a suite with a row here, and the same row in
CONTRIBUTING.md: `python -m tests.lanes` prints both tables as they stand there,
`tests/test_lanes.py` compares them. A test is in

- `nightly` alone if it is marked so;
- `fast`, and the others too, if its suite's row names its module, or it is marked `fast`; not if
  it is marked `slow`, or needs an sshd, a second host, a mount or root;
- the whole and `nightly` otherwise: a new test is there without a row.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

FAST, WHOLE, NIGHTLY = "fast", "whole", "nightly"
#: Minutes of the whole with lint and types, on two processors.
LIMIT_MINUTES = 40
#: Fixtures that start an sshd or a second host, or mount something.
RIGS = {"sshd", "fresh_sshd", "two_hosts", "small_disk"}
#: How the reason of a `skipif` begins that is about this user.
ONLY_ROOT = "only root"
ALL = "*"


@dataclass(frozen=True)
class Share:
    """A part of the 40 minutes, and the suites that have it."""

    minutes: float
    suites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A folder of tests: its minutes in the whole, and the modules that are in `fast`, too."""

    minutes: float
    fast: tuple[str, ...] = ()


#: Suites without a folder yet come with the issue that has their share.
SHARES = {
    "today": Share(
        14,
        (
            "tests",
            "tests/bench",
            "tests/deploy",
            "tests/dku",
            "tests/e2e",
            "tests/engine",
            "tests/faults",
            "tests/jobs",
            "tests/portals",
            "tests/rig",
            "tests/site",
        ),
    ),
    "first minutes": Share(3, ("tests/first_run",)),
    "file systems": Share(6.5, ("tests/filesystems",)),
    "accounts": Share(2, ("tests/accounts",)),
    "hosts": Share(3, ("tests/hostile",)),
    "web": Share(2.5),
    "sheets and release": Share(2),
    "machines": Share(2),
    "desk": Share(2),
    "cluster": Share(1),
    "lint and types": Share(2),
}

SUITES = {
    "tests": Suite(0.2, ("test_imports", "test_lanes", "test_sizes", "test_status")),
    "tests/accounts": Suite(2),
    "tests/bench": Suite(0.2, ("test_bench", "test_paired")),
    "tests/deploy": Suite(0.3, ("test_alembic_chain", "test_docker_files")),
    "tests/dku": Suite(0.2, ("test_checks", "test_smoke")),
    "tests/e2e": Suite(0.2),
    "tests/engine": Suite(
        4.5,
        (
            "test_agent",
            "test_conflicts",
            "test_filters",
            "test_helper",
            "test_hostile",
            "test_journal",
            "test_local",
            "test_plan",
            "test_survey",
            "test_verify",
            "test_wire",
            "test_wire_zip",
        ),
    ),
    "tests/faults": Suite(5.5),
    "tests/filesystems": Suite(6.5),
    "tests/first_run": Suite(1.8),
    "tests/hostile": Suite(1),
    "tests/jobs": Suite(
        1.6,
        (
            "test_admin",
            "test_api",
            "test_attempts",
            "test_bandwidth",
            "test_eligibility",
            "test_execution",
            "test_launch",
            "test_leases",
            "test_pause_resume_cancel",
            "test_prune",
            "test_retries",
            "test_transitions",
        ),
    ),
    "tests/portals": Suite(0.2, (ALL,)),
    "tests/rig": Suite(0.1, ("test_folders",)),
    "tests/site": Suite(
        1,
        ("test_admin", "test_api", "test_create_token", "test_env", "test_health", "test_pages"),
    ),
}


def suite_of(path: str) -> str:
    """The suite of a module, by its path from the root: the nearest folder that has a row.

    Without a row it is the folder's own name: `tests/test_lanes.py` fails then.
    """
    folder = Path(path).parent
    for parent in (folder, *folder.parents):
        # What lies in a folder below `tests` does not belong to the row of `tests`.
        if parent.as_posix() in SUITES and (parent.name != "tests" or parent == folder):
            return parent.as_posix()
    return folder.as_posix()


def is_listed(path: str) -> bool:
    """Whether a module is in `fast` by its suite's row."""
    fast = SUITES.get(suite_of(path), Suite(0)).fast
    return ALL in fast or Path(path).stem in fast


def lanes_of(path: str, markers: set[str], needs_rig: bool) -> set[str]:
    """The lanes in which a test runs, by its module's path and its marks."""
    if NIGHTLY in markers:
        return {NIGHTLY}
    if (FAST in markers or is_listed(path)) and "slow" not in markers and not needs_rig:
        return {FAST, WHOLE, NIGHTLY}
    return {WHOLE, NIGHTLY}


def lanes_of_item(item: pytest.Item) -> set[str]:
    """The lanes in which a collected test runs."""
    path = item.nodeid.partition("::")[0]
    markers = {marker.name for marker in item.iter_markers()}
    rooted = any(
        str(marker.kwargs.get("reason", "")).startswith(ONLY_ROOT)
        for marker in item.iter_markers("skipif")
    )
    rigs = RIGS & set(getattr(item, "fixturenames", ()))
    return lanes_of(path, markers, rooted or bool(rigs))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--lane`, as deploy/test.sh gives it."""
    parser.addoption(
        "--lane",
        choices=[FAST, WHOLE, NIGHTLY],
        default=WHOLE,
        help="fast: no server but Postgres and Redis, 2 minutes; nightly: everything; "
        "default: all that is not marked nightly",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have the fast lane refuse to start what it must do without."""
    if config.getoption("--lane") == FAST:
        from tests.rig.sshd import Sshd
        from tests.rig.two_hosts import TwoHosts

        for rig, start in ((Sshd, "start"), (TwoHosts, "__enter__")):
            setattr(rig, start, _refuse)
    config.pluginmanager.register(_Minutes(config), "ketter-minutes")


def _refuse(rig: object) -> None:
    pytest.fail(
        f"the fast lane starts no {type(rig).__name__}: mark this test `slow`, or take its module "
        "out of tests/lanes.py"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the fast lane the reading of modules that have nothing for it."""
    if config.getoption("--lane") != FAST or collection_path.suffix != ".py":
        return None
    path = os.path.relpath(collection_path, config.rootpath)
    if is_listed(path) or f"mark.{FAST}" in collection_path.read_text("utf-8"):
        return None
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to other lanes."""
    lane = config.getoption("--lane")
    chosen = [item for item in items if lane in lanes_of_item(item)]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


class _Minutes:
    """Tells at the end how many minutes each suite had of the run, for the table."""

    def __init__(self, config: pytest.Config) -> None:
        self._processes = getattr(config.option, "numprocesses", None) or 0
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[suite_of(report.nodeid.partition("::")[0])] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._processes:
            return
        terminalreporter.section(f"minutes of {self._processes} processes")
        for suite, seconds in sorted(self._seconds.items()):
            minutes = seconds / 60 / self._processes
            terminalreporter.write_line(f"{suite}: {minutes:.1f} ({seconds:.0f} s in tests)")


def tables() -> list[str]:
    """The lines of both tables, as CONTRIBUTING.md has them."""
    lines = ["| suite | lane | minutes | in `fast`, too |", "| --- | --- | --- | --- |"]
    for name, suite in SUITES.items():
        lane = FAST if ALL in suite.fast else WHOLE
        modules = ", ".join(f"`{module.removeprefix('test_')}`" for module in suite.fast) or "-"
        told = "all" if ALL in suite.fast else modules
        lines.append(f"| `{name}` | {lane} | {suite.minutes:g} | {told} |")
    lines += ["", "| share | minutes | suites |", "| --- | --- | --- |"]
    for name, share in SHARES.items():
        suites = "-" if not share.suites else ", ".join(f"`{suite}`" for suite in share.suites)
        told = "the others above" if name == "today" else suites
        lines.append(f"| {name} | {share.minutes:g} | {told} |")
    return lines


if __name__ == "__main__":
    print("\n".join(tables()))
