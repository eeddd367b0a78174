"""What arrives is what was there: the hard tree, whatever way and in whatever packing it goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import Mode, Strategy
from tests.engine.exactness import (
    STRATEGIES,
    assert_only_specials_failed,
    ends,
    run_as_ordinary_user,
    shown,
    specials,
    to_arrive,
    with_folders_above,
)
from tests.rig.hard_tree import (
    NAMES,
    TOP,
    assert_same,
    build_hard,
    describe,
)
from tests.rig.transfers import Run, endpoint

pytestmark = pytest.mark.usefixtures("leave_no_hard_tree")


#: What the sparse file needs at the target that does not keep its holes, and room to breathe.
NEEDED_BYTES = 10 << 30


WAYS = ("local", "local-ssh", "ssh-local")
#: Each way, each packing, each mode; and several streams.
ROUTES = [
    *((way, each, mode, 1) for way in WAYS for each in STRATEGIES for mode in Mode),
    *(("local", each, Mode.MOVE, 3) for each in STRATEGIES),
]


@pytest.mark.parametrize(("way", "strategy", "mode", "streams"), ROUTES)
def test_a_tree_of_awkward_names_modes_and_kinds_arrives_exactly(
    tmp_path: Path,
    run: Run,
    request: pytest.FixtureRequest,
    way: str,
    strategy: Strategy,
    mode: Mode,
    streams: int,
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a", xattrs=True)

    report = run(mode=mode, strategy=strategy, streams=streams, **ends(way, tmp_path, request))

    assert_only_specials_failed(report, before)
    assert_same(to_arrive(before), tmp_path / "b")
    left = describe(tmp_path / "a", xattrs=True)
    if mode is Mode.COPY:
        assert_same(before, left)
        return
    assert set(left) == with_folders_above(specials(before))
    for path in specials(before):
        assert left[path] == before[path]


@pytest.mark.parametrize(
    ("strategy", "parcel"), [(Strategy.ZIP, 4 << 20), (Strategy.FILES, 8 << 20)]
)
def test_a_move_over_several_streams_leaves_no_folder_behind(
    tmp_path: Path, run: Run, strategy: Strategy, parcel: int
) -> None:
    for number in range(12):
        folder = tmp_path / "a" / f"reel {number:02}" / "folder"
        (folder / "deeper").mkdir(parents=True)
        # Fills the parcel that "folder" is in, so that "deeper" is in the next, and there first.
        (folder.parent / "large").write_bytes(os.urandom(parcel - 1000))
        (folder / "clip").write_bytes(bytes(500_000))
        (folder / "deeper" / "clip").write_bytes(b"frames")
    before = describe(tmp_path / "a")

    report = run(strategy=strategy, streams=3, mode=Mode.MOVE)

    assert (report.status, report.files_removed) == ("done", 36)
    assert_same(before, tmp_path / "b")
    assert set(describe(tmp_path / "a")) == {TOP}


def test_a_second_copy_of_the_awkward_tree_sends_and_changes_nothing(
    tmp_path: Path, run: Run
) -> None:
    build_hard(tmp_path / "a")
    run()
    before, there = describe(tmp_path / "a"), describe(tmp_path / "b")

    report = run()

    assert_only_specials_failed(report, before)
    assert (report.files, report.bytes) == (0, 0)
    # The top had a staging folder in it for a while.
    there[TOP] = there[TOP]._replace(mtime_ns=0)
    now = describe(tmp_path / "b")
    assert_same(there, {**now, TOP: now[TOP]._replace(mtime_ns=0)})


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_delivered_modes_do_not_depend_on_the_umask(
    tmp_path: Path, run: Run, strategy: Strategy, umask: int
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")

    usual = os.umask(umask)
    try:
        run(strategy=strategy)
    finally:
        os.umask(usual)

    assert_same(to_arrive(before), tmp_path / "b")


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_the_default_acl_of_the_target_changes_nothing_and_its_setgid_bit_is_inherited(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b").chmod(0o2777)
    if shutil.which("setfacl"):
        default = ["setfacl", "-d", "-m", "u::r,g::-,o::-", str(tmp_path / "b")]
        subprocess.run(default, check=False, capture_output=True)

    run(strategy=strategy)

    expected, found = to_arrive(before), describe(tmp_path / "b")
    del expected[TOP], found[TOP]  # It was there before, and is not ours to change.
    for path, facts in expected.items():
        if facts.kind == "folder":
            expected[path] = facts._replace(mode=facts.mode | 0o2000)
    assert_same(expected, found)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_single_file_may_have_any_name(tmp_path: Path, run: Run, name: bytes) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
    source, target = (tmp_path / folder / os.fsdecode(name) for folder in "ab")
    source.write_bytes(name)
    source.chmod(0o440)
    os.utime(source, ns=(-1, -1))
    before = describe(tmp_path / "a")

    report = run(source=endpoint(source), target=endpoint(tmp_path / "b"), mode=Mode.MOVE)

    assert (report.status, report.files, report.files_removed) == ("done", 1, 1)
    assert set(describe(tmp_path / "a")) == {TOP}
    assert_same({name: before[name]}, {name: describe(tmp_path / "b")[name]})
    assert os.listdir(target.parent) == [os.fsdecode(name)]


def test_a_file_time_far_in_the_future_is_carried_or_its_file_is_reported(
    tmp_path: Path, run: Run
) -> None:
    (tmp_path / "a").mkdir()
    for name, seconds in (("2261", 9_200_000_000), ("2400", 13_569_465_600)):
        path = tmp_path / "a" / name
        path.write_bytes(b"late")
        os.utime(path, ns=(0, seconds * 10**9 + 1))
        if path.stat().st_mtime_ns != seconds * 10**9 + 1:
            pytest.skip("this file system has no such times")
    before = describe(tmp_path / "a")

    report = run(mode=Mode.MOVE)

    arrived = describe(tmp_path / "b")
    named = {os.fsencode(failure.path) for failure in report.failures}
    assert b"2261" in arrived
    assert arrived.keys() | named >= before.keys()
    for name_there in arrived.keys() - {TOP}:
        assert arrived[name_there] == before[name_there]
    assert set(os.listdir(tmp_path / "a")) == {os.fsdecode(one) for one in named}


@pytest.mark.nightly  # The whole has it in a job: tests/faults/test_names.py.
@pytest.mark.slow
@pytest.mark.xdist_group("large")
@pytest.mark.parametrize(
    ("strategy", "mode"),
    [(Strategy.AUTO, Mode.MOVE), (Strategy.ZIP, Mode.COPY), (Strategy.FILES, Mode.COPY)],
)
def test_a_folder_of_more_than_65535_files_arrives(
    tmp_path: Path, run: Run, strategy: Strategy, mode: Mode
) -> None:
    build_hard(tmp_path / "a", many=True)
    before = describe(tmp_path / "a")

    report = run(strategy=strategy, mode=mode)

    assert_only_specials_failed(report, before)
    assert_same(to_arrive(before), tmp_path / "b")


@pytest.mark.nightly  # As above.
@pytest.mark.slow
@pytest.mark.xdist_group("large")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_larger_than_4_gib_arrives(tmp_path: Path, run: Run, strategy: Strategy) -> None:
    if shutil.disk_usage(tmp_path).free < NEEDED_BYTES:
        pytest.skip("a copy of the 4 GiB file needs 10 GiB of free space in the temporary folder")
    build_hard(tmp_path / "a", large=True)
    before = describe(tmp_path / "a")

    report = run(strategy=strategy)

    assert_only_specials_failed(report, before)
    assert_same(to_arrive(before), tmp_path / "b")
    for name in "ab":  # No promise, but worth knowing: see it with `pytest -rP`.
        blocks = (tmp_path / name / "large" / "over 4 GiB").stat().st_blocks
        print(f"{name}: {blocks * 512:,} bytes allocated for the file over 4 GiB")


def below(path: bytes, folders: set[bytes]) -> bool:
    """Whether a path is one of the folders or lies in one of them."""
    return any(path == folder or path.startswith(folder + b"/") for folder in folders)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_ordinary_user_transfers_readable_entries_and_the_rest_is_reported(
    tmp_path: Path, strategy: Strategy, mode: Mode
) -> None:
    build_hard(tmp_path / "a", special=False)
    before = describe(tmp_path / "a", xattrs=True)
    closed = {p for p, f in before.items() if f.kind == "folder" and f.mode & 0o500 != 0o500}
    unreadable = {p for p, f in before.items() if f.kind == "file" and not f.mode & 0o400}
    expected = {p: f for p, f in before.items() if p not in unreadable and not below(p, closed)}

    status, failures = run_as_ordinary_user(tmp_path, mode=mode, strategy=strategy)

    found = {p: f for p, f in describe(tmp_path / "b").items() if not below(p, closed)}
    assert_same(to_arrive(expected), found)
    refused = {p for p in unreadable if not below(p, closed)} | closed
    if mode is Mode.MOVE:  # What is in a read-only folder goes, too: it is this user's own.
        kept = {p for p in before if below(p, closed)} | unreadable
        assert set(describe(tmp_path / "a")) == with_folders_above(kept)
    else:
        assert_same(before, tmp_path / "a")
    assert set(failures) == {shown(path) for path in refused}
    assert {code for code, _ in failures.values()} <= {"PERMISSION_DENIED"}
    assert status == ("partial" if refused else "done")
