"""Targets that two jobs want, that are the source, or that were prepared by somebody hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.errors import InvalidJob
from jobs.models import Job
from jobs.states import Status
from jobs.tasks import run_job
from portals.services import portal_create
from tests.faults.crew import Stage
from tests.faults.here import Here, failures
from tests.rig.lying import SEND, Lie, found
from tests.rig.planted_code import FOLDING_FORMS, Plant
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db


@pytest.mark.fault(10)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("first", "second"), [("in", "in"), ("in", "in/below/it"), ("in/below/it", "in")]
)
def test_two_jobs_to_the_same_or_a_nested_target_run_one_after_the_other(
    stage: Stage, first: str, second: str
) -> None:
    """Fault 10: two jobs to the same or nested target."""
    jobs = [
        stage.launch(f"day{number}", lambda root: build_small(root, 60), target_path=path)
        for number, path in enumerate((first, second))
    ]
    stage.oracles.clear()  # It judges a target that is one job's own.
    stage.crew.start(3)

    stage.watch(lambda: not Job.objects.exclude(finished_at__isnull=False).exists())

    spans = []
    for job in jobs:
        job.refresh_from_db()
        assert job.attempt == 1
        spans.append((job.started_at, job.finished_at))
        assert job.status == Status.DONE, job.error_message
    spans.sort()
    assert spans[0][1] <= spans[1][0]
    # Of the same names with the same content, all is there already.
    assert sorted(job.files_skipped for job in jobs) == [0, 60 if first == second else 0]


@pytest.mark.fault(10)
def test_a_waiting_job_names_the_job_that_uses_its_target(here: Here) -> None:
    """Fault 10: two jobs to the same or nested target."""
    build_small(here.source, 20)
    waits = []

    def look() -> None:
        second = here.launch(target_path="in/day1/below")
        run_job(str(second.pk))
        second.refresh_from_db()
        waits.append((second, second.status, second.waits_for))

    first = here.run(at="transfer", meddle=look)

    second, status, why = waits[0]
    assert (first.status, status) == (Status.DONE, Status.QUEUED)
    assert str(first) in why
    assert here.attempt(second).status == Status.DONE


@pytest.mark.fault(11)
@pytest.mark.parametrize("path", ["day1", "day1/below"])
def test_a_target_that_is_or_lies_in_the_source_is_refused_at_launch(here: Here, path: str) -> None:
    """Fault 11: job whose source is its target, or target inside source."""
    build_small(here.source, 5)

    with pytest.raises(InvalidJob):
        here.launch(target_portal=here.lab, target_path=path, mode="move")


@pytest.mark.fault(11)
@pytest.mark.parametrize("path", ["day1", "day1/below", ""])
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_job_fails_when_its_target_overlaps_the_source_through_a_symlinked_root(
    here: Here, tmp_path: Path, path: str, mode: str
) -> None:
    """Fault 11: job whose source is its target, or target inside source."""
    build_small(here.source, 5)
    (tmp_path / "other-way").symlink_to(tmp_path / "lab")
    alias = portal_create(name="alias", kind="local", root_path=str(tmp_path / "other-way"))

    job = here.run(target_portal=alias, target_path=path, mode=mode)

    assert (job.status, job.error_code) == (Status.FAILED, "TARGET_OVERLAPS_SOURCE")
    here.oracles[job].no_debris()
    assert here.oracles[job].trees()[0] == here.oracles[job].before


@pytest.mark.fault(23)
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_job_fails_when_a_symlink_above_the_target_leads_out_of_the_root(
    here: Here, tmp_path: Path, mode: str
) -> None:
    """Fault 23: symlink planted in target."""
    build_small(here.source, 20)
    (tmp_path / "srvtrf/in").symlink_to(tmp_path / "canary")

    job = here.run(mode=mode)

    assert (job.status, job.error_code) == (Status.FAILED, "PATH_OUTSIDE_ROOT")
    here.judge(job, status=Status.FAILED)


@pytest.mark.fault(23)
@pytest.mark.parametrize("policy", ["fail", "overwrite", "skip"])
@pytest.mark.parametrize("when", ["before", "transfer", "publish"])
def test_a_job_does_not_follow_a_symlink_that_is_planted_in_the_target(
    here: Here, tmp_path: Path, policy: str, when: str
) -> None:
    """Fault 23: symlink planted in target."""
    build_small(here.source, 20)
    here.target.mkdir(parents=True)

    def plant_it() -> None:
        (here.target / "reel_00").symlink_to(tmp_path / "canary")

    if when == "before":
        plant_it()
    job = here.run(
        at=when if when != "before" else "preflight",
        meddle=plant_it if when != "before" else lambda: None,
        on_conflict=policy,
    )

    if policy == "skip" and when == "before":  # What is there stays, as asked, and is counted.
        assert (job.status, job.files_done + job.files_skipped) == (Status.DONE, 20)
        assert job.files_skipped > 0
    else:
        assert job.status in {Status.FAILED, Status.PARTIAL}, job.status
    oracle = here.oracles[job]
    oracle.nothing_else_changed()
    oracle.no_debris()
    assert os.readlink(here.target / "reel_00") == str(tmp_path / "canary")


#: The archive names its members otherwise than the list, or says other things of them.
RENAMING = """
_real_add = ZipWriter.add
def _add(self, entry, crc, data):
    _real_add(self, entry._replace(path=NAME), crc, data)
ZipWriter.add = _add
"""
TWICE = """
_real_add = ZipWriter.add
def _add(self, entry, crc, data):
    _real_add(self, entry, crc, data)
    _real_add(self, entry, crc, data)
ZipWriter.add = _add
"""
BOMB = """
_real_add = ZipWriter.add
def _add(self, entry, crc, data):
    data = bytes(1 << 24)
    _real_add(self, entry._replace(size=len(data)), zlib.crc32(data), data)
ZipWriter.add = _add
"""


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    "text",
    [
        RENAMING.replace("NAME", '"../../evil"'),
        RENAMING.replace("NAME", '"/tmp/evil"'),
        RENAMING.replace("NAME", '"C:\\\\evil"'),
        RENAMING.replace("NAME", '"reel_00/other"'),
        TWICE,
        BOMB,
    ],
    ids=["dot-dot", "absolute", "drive", "other", "twice", "bomb"],
)
def test_a_move_fails_when_the_source_packs_hostile_zip_entries(
    here: Here, lie: Lie, text: str
) -> None:
    """Fault 24: zip-slip entry, absolute, dot-dot, duplicate entry, zip bomb."""
    build_small(here.source, 20)
    lie(source_zip_writer="import zlib\n" + text)

    job = here.run(mode="move", strategy="zip")

    assert job.status == Status.FAILED, job.error_message
    here.judge(job, status=Status.FAILED)
    assert not here.target.exists()
    assert here.oracles[job].trees()[0] == here.oracles[job].before


@pytest.mark.fault(24)
@pytest.mark.parametrize("path", ["../../evil", "/evil", "a/../../evil"])
def test_hostile_paths_in_the_list_of_files_create_nothing_outside_the_target(
    here: Here, lie: Lie, path: str
) -> None:
    """Fault 24: zip-slip entry, absolute, dot-dot, duplicate entry, zip bomb."""
    here.source.mkdir()
    (here.source / "report").write_bytes(b"report")
    lie(source_commands=found(("report", "f", 6, ""), (path, "f", 6, "")), source_sender=SEND)

    job = here.run(mode="move")

    assert job.status in {Status.FAILED, Status.PARTIAL}
    here.oracles[job].nothing_else_changed()
    here.oracles[job].no_debris()
    assert not list(Path(here.srvtrf.root_path).rglob("evil"))


def shown(name: str) -> str:
    """A name as a person can tell it from its twin: an accent of its own is spelt out."""
    return name.replace("\u0301", r"\u0301")


@pytest.mark.fault(27)
@pytest.mark.parametrize("twins", [("A.mov", "a.mov"), ("e\u0301.mov", "\u00e9.mov")])
def test_a_partial_move_names_both_files_whose_names_the_target_takes_for_one(
    here: Here, plant: Plant, twins: tuple[str, str]
) -> None:
    """Fault 27: case twins and NFC/NFD twins on a folding target."""
    build_small(here.source, 20)
    for name in twins:
        (here.source / name).write_bytes(name.encode())
    here.target.mkdir(parents=True)  # Empty, so that only trying tells what it does.
    plant(FOLDING_FORMS)

    job = here.run(mode="move")

    assert job.status == Status.PARTIAL, job.error_message
    last = job.events.order_by("-seq")[0]
    assert len(failures(job)) == 2
    for failure in last.data["failures"]:  # Each names the other, too.
        assert all(shown(name) in failure["message"] for name in twins)
    assert sorted(os.listdir(here.source)) == sorted(twins)
    assert job.files_done == 20
