"""What holds through every fault, each shown once in small on real parts.

The kill points, the rows and the soak show the same at length.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from rest_framework.test import APIClient

from jobs.errors import IllegalMove, InvalidJob, JobHasEnded, StaleJob
from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.transitions import job_move
from jobs.running.observer import JobObserver
from jobs.services import job_cancel, job_create
from jobs.states import FINAL, Status
from jobs.tasks import run_job
from portals.services import credential_create, portal_create
from tests.faults.crew import MARKED, Stage, in_state, kill_with_horse, worker_of
from tests.faults.here import Here, failures
from tests.faults.kill_cases import build
from tests.faults.looking import Looking, Reads
from tests.faults.oracle import command_line, whole
from tests.faults.spoiling import AT_REST, CLIP, REFUSING, rewrite
from tests.rig.events import codes
from tests.rig.interrupted import MIB, build_large, staged
from tests.rig.lying import Lie
from tests.rig.memory import RECEIVER, SENDER, Watch
from tests.rig.planted_code import Plant
from tests.rig.trees import MTIME, assert_equal_trees, build_small

pytestmark = pytest.mark.django_db

CHANGED = "reel_01/clip_1/frame_000001.dpx"
LOOKS_ALIKE = "reel_02/clip_2/frame_000002.dpx"


@pytest.mark.invariant(1)
def test_no_source_entry_is_removed_unless_verified_and_unchanged(here: Here, plant: Plant) -> None:
    """Invariant 1: No source entry is removed unless its copy was verified in this job and the
    source is unchanged since.
    """
    build_small(here.source, 30)
    before = whole(here.source)
    alike = here.target / LOOKS_ALIKE
    alike.parent.mkdir(parents=True)
    alike.write_bytes(bytes(before[LOOKS_ALIKE.encode()].size))
    os.utime(alike, ns=(MTIME, before[LOOKS_ALIKE.encode()].mtime_ns))
    plant(REFUSING)

    job = here.run(
        mode="move",
        on_conflict="skip",
        at="remove_source",
        meddle=lambda: rewrite(here.source / CHANGED),
    )

    assert failures(job) == {CLIP: "PERMISSION_DENIED", CHANGED: "SOURCE_CHANGED"}
    left = {path.relative_to(here.source).as_posix() for path in here.source.rglob("*.dpx")}
    assert left == {CLIP, CHANGED, LOOKS_ALIKE}
    here.oracles[job].sources_gone_are_proven(job)
    arrived = whole(here.target)
    for path in before.keys() - whole(here.source).keys():
        assert arrived[path] == before[path]


@pytest.mark.invariant(2)
@pytest.mark.django_db(transaction=True)
def test_no_final_name_shows_partial_content(stage: Stage) -> None:
    """Invariant 2: No final name ever shows partial or unverified content."""
    target = Path(stage.far.root_path) / "in/day1"
    build_small(target, 10, seed=2)
    build_large(target / "large.mov", MIB)
    old = contents(target)
    job = stage.launch("day1", build_with_large, on_conflict="overwrite", bandwidth_limit=8 * MIB)
    new = contents(stage.oracles[job].source)
    seen: set[tuple[str, bool]] = set()

    def look() -> None:
        now = contents(target)
        assert now.keys() >= old.keys()
        for name, content in now.items():
            assert content in (old.get(name), new[name]), f"{name} has {len(content)} bytes"
            seen.add((name, content == new[name]))

    with Looking(look) as looking:
        stage.crew.start(2, MARKED)
        stage.watch(lambda: staged(target) >= 2 * MIB)
        kill_with_horse(stage, worker_of(job))
        stage.wait()

    stage.oracles[job].judge(job)
    assert (job.attempt, looking.times > 50) == (2, True)
    assert seen == {(name, False) for name in old} | {(name, True) for name in new}


def build_with_large(root: Path) -> None:
    """Small files, and one that takes a while."""
    build_small(root, 60)
    build_large(root / "large.mov", 6 * MIB)


def contents(root: Path) -> dict[str, bytes]:
    """All files under final names."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for top in root.iterdir()
        if not top.name.startswith(".ketter-")
        for path in (top, *top.rglob("*"))
        if path.is_file()
    }


@pytest.mark.invariant(2)
def test_no_final_name_shows_unverified_content(here: Here, lie: Lie, tmp_path: Path) -> None:
    """Invariant 2: No final name ever shows partial or unverified content."""
    build_small(here.source, 30)
    spoilt = next(here.source.rglob("*000007.dpx")).relative_to(here.source)
    (here.source / spoilt).write_bytes(b"FRAMES of some length")
    here.target.mkdir(parents=True)
    flag = tmp_path / "flag"
    lie(target_receiver=AT_REST.replace("ONCE", "True").replace("FLAG", repr(str(flag))))
    wanted = contents(here.source)

    def look() -> None:
        for name, content in contents(here.target).items():
            assert content == wanted[name], name

    with Looking(look):
        job = here.run(verify="readback")

    assert flag.exists()
    here.judge(job)


KILLS = (
    *("transfer:sender", "verify:worker", "publish:receiver", "transfer:sshd"),
    *("remove_source:worker", "finish:worker"),
)


@pytest.mark.invariant(3)
@pytest.mark.django_db(transaction=True)
def test_a_job_killed_at_any_point_ends_with_the_tree_of_an_undisturbed_run(stage: Stage) -> None:
    """Invariant 3: After any kill at any point, re-running ends in the same tree as an undisturbed
    run, with no debris.
    """
    undisturbed = stage.launch("undisturbed", build_timeless, mode="move")
    killed = [
        stage.launch(kill.replace(":", "-"), build_timeless, mode="move", failpoint=kill)
        for kill in KILLS
    ]
    stage.crew.start(4)

    stage.wait()

    wanted = whole(stage.oracles[undisturbed].target)
    for job in killed:
        stage.oracles[job].judge(job)
        assert job.attempt > 1, f"nobody was killed: {job.idempotency_key}"
        assert_equal_trees(wanted, whole(stage.oracles[job].target))


def build_timeless(root: Path) -> None:
    """The same tree each time, down to the times."""
    build(root)
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(MTIME, MTIME), follow_symlinks=False)


@pytest.mark.invariant(4)
@pytest.mark.parametrize("blind", [False, True])
def test_at_most_one_attempt_publishes(
    here: Here, monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    """Invariant 4: At most one attempt publishes."""
    build_small(here.source, 30)
    here.target.mkdir(parents=True)
    ended: list[dict[str, Any]] = []

    def take_over() -> None:
        job = Job.objects.get()
        Job.objects.update(lease_until=Now() - timedelta(minutes=1))
        assert reaper.tick().taken_back == [job.pk]
        run_job(str(job.pk))
        assert len(contents(here.target)) == 30
        for path in here.target.glob("reel_*"):
            shutil.rmtree(path)
        ended.extend(Job.objects.values())
        if blind:  # Then it is the target alone that can refuse the first attempt.
            monkeypatch.setattr(JobObserver, "save", lambda _: True)

    job = here.run(at="publish", meddle=take_over)

    # It was about to publish when the second attempt did, whose tree is gone from there.
    assert list(here.target.iterdir()) == []
    assert (job.status, job.attempt) == (Status.DONE, 2)
    assert list(Job.objects.values()) == ended
    assert codes(job) == ["CREATED", "STARTED", "WORKER_LOST", "STARTED", "DONE"]


@pytest.mark.invariant(5)
@pytest.mark.parametrize("end", sorted(FINAL))
def test_a_job_ends_in_exactly_one_terminal_state(here: Here, end: Status) -> None:
    """Invariant 5: A job ends in exactly one terminal state, with an event that says why."""
    build_small(here.source, 10)
    if end == Status.FAILED:
        shutil.copytree(here.source, here.target)
        rewrite(here.target / CLIP)
    beliefs: list[Job] = []

    def meddle() -> None:
        job = Job.objects.get()
        beliefs.append(job)
        if end == Status.CANCELLED:
            job_cancel(Job.objects.get(), by=here.by)
            time.sleep(0.5)
        elif end == Status.PARTIAL:
            (here.source / CLIP).unlink()

    job = here.run(at="scan" if end == Status.FAILED else "transfer", meddle=meddle)

    assert job.status == end
    here.oracles[job].trail_ends_once(job)
    trail = list(job.events.values())
    for other in FINAL:
        with pytest.raises(StaleJob):  # Who still believes that it runs.
            job_move(beliefs[0], other, code=other.upper(), message="It is over.")
        with pytest.raises(IllegalMove):
            job_move(job, other, code=other.upper(), message="It is over.")
    with pytest.raises(JobHasEnded):
        job_cancel(job, by=here.by)
    reaper.tick()
    here.attempt(job)
    assert (job.status, list(job.events.values())) == (end, trail)


@pytest.mark.invariant(6)
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_job_reads_and_writes_only_inside_its_two_roots(
    here: Here, tmp_path: Path, mode: str
) -> None:
    """Invariant 6: Nothing outside the two roots is read or written."""
    outside = tmp_path / "outside"
    build_small(outside, 20, seed=2)
    reads = Reads(outside)
    build_small(here.source, 20)
    (here.source / "file").symlink_to(outside / CLIP)
    (here.source / "folder").symlink_to("../../outside/reel_00")
    for portal in (here.lab, here.srvtrf):
        (Path(portal.root_path) / "away").symlink_to(outside)

    here.judge(here.run(mode="copy"))
    reads.assert_none()
    for way in ({"source_path": "away"}, {"target_path": "away"}, {"target_path": "away/new"}):
        assert here.run(mode=mode, **way).error_code == "PATH_OUTSIDE_ROOT", way
        reads.assert_none()
    for way in ({"source_path": "../outside"}, {"target_path": "in/../../outside"}):
        with pytest.raises(InvalidJob):
            here.launch(mode=mode, **way)

    # At the target a link that leads out has the place of a folder that is sent.
    shutil.rmtree(here.target / "reel_00")
    (here.target / "reel_00").symlink_to(outside / "reel_00")
    here.run(mode=mode, on_conflict="overwrite")
    reads.assert_none()


@pytest.mark.invariant(6)
@pytest.mark.parametrize("point", ["transfer", "remove_source"])
def test_a_move_does_not_follow_a_link_that_replaces_a_source_folder(
    here: Here, tmp_path: Path, point: str
) -> None:
    """Invariant 6: Nothing outside the two roots is read or written."""
    outside = tmp_path / "outside"
    build_small(here.source, 20)
    folder = here.source / "reel_01"
    shutil.copytree(here.source, outside)
    reads = Reads(outside)

    def swap() -> None:
        # It leads to the very files that were found in the folder.
        shutil.rmtree(outside / folder.name)
        shutil.copytree(folder, outside / folder.name, copy_function=os.link)
        shutil.rmtree(folder)
        folder.symlink_to(outside / folder.name)
        reads.forget()

    here.run(mode="move", at=point, meddle=swap)

    assert folder.is_symlink()
    reads.assert_none()


@pytest.mark.invariant(7)
@pytest.mark.django_db(transaction=True)
def test_no_secret_reaches_logs_events_redis_the_api_or_process_lists(
    stage: Stage, alice: User, api: Callable[[User], APIClient]
) -> None:
    """Invariant 7: No secret reaches a log, an event, Redis, an API answer or a process list."""
    password = "correct horse battery staple"
    stage.secrets = [*stage.secrets, password]
    refused = portal_create(
        name="refused",
        kind="ssh",
        host=stage.sshd.host,
        port=stage.sshd.port,
        username=stage.sshd.username,
        root_path=stage.far.root_path,
        host_key=stage.sshd.host_key,
        credential=credential_create(name="word", kind="password", secret=password),
    )
    good = stage.launch("good", build_small, mode="move")
    stage.far = refused
    bad = stage.launch("bad", build_small)

    def look() -> None:
        told = "\n".join(command_line(int(name)) for name in os.listdir("/proc") if name.isdigit())
        assert not [secret for secret in stage.secrets if secret in told]

    with Looking(look) as looking:
        stage.crew.start(2)
        stage.watch(lambda: in_state(good, Status.DONE)() and codes(bad)[-1] == "AUTH_FAILED")

    assert looking.times > 20
    stage.oracles[good].judge(good)
    stage.oracles[bad].secrets_are_kept(bad)
    client = api(alice)
    for url in (
        *("/api/jobs/", f"/api/jobs/{bad.pk}/", f"/api/jobs/{bad.pk}/events/", "/api/portals/"),
        *(f"/api/portals/{refused.pk}/", "/api/credentials/"),
        f"/api/credentials/{refused.credential_id}/",
    ):
        answer = client.get(url)
        assert answer.status_code == 200, url
        assert not [secret for secret in stage.secrets if secret in answer.content.decode()], url


FEW, MANY = 20_000, 60_000
#: Bytes more that each part may take; to keep every entry would take 12 MB. What a worker has
#: in its hands grows up to some 100,000 entries, which tests/bench waits for.
MORE = {
    os.path.basename(sys.executable): 12 << 20,
    **dict.fromkeys(("ssh", "sshd", SENDER, RECEIVER), 4 << 20),
}


@pytest.mark.slow
@pytest.mark.invariant(8)
@pytest.mark.django_db(transaction=True)
def test_memory_stays_flat_as_the_tree_grows(stage: Stage) -> None:
    """Invariant 8: Memory stays flat as the tree grows."""
    stage.crew.start(1, {})
    few, many = (peaks(stage, entries) for entries in (FEW, MANY))
    grown = {part: many[part] - few[part] for part in MORE}
    assert all(grown[part] < most for part, most in MORE.items()), grown


def peaks(stage: Stage, entries: int) -> dict[str, int]:
    """The most memory that each process took to move so many entries, by its part."""
    source = Path(stage.near.root_path) / str(entries)
    for number in range(entries):
        if number % 500 == 0:
            folder = source / f"folder {number}"
            folder.mkdir(parents=True)
        (folder / f"file {number}").touch()
    with Watch() as watch:
        job = job_create(
            by=stage.by,
            source_portal=stage.near,
            source_path=source.name,
            target_portal=stage.far,
            target_path=source.name,
            mode="move",
        )
        stage.watch(in_state(job, *FINAL))
    job.refresh_from_db()
    assert (job.status, job.files_done) == (Status.DONE, entries)
    return watch.peaks
