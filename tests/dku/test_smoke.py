"""The smoke transfer's own parts: its trees, its arena, its judgement."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from rq import Worker

import dku.arena
import engine
from dku.arena import ArenaBusy, arena, home
from dku.checks import smoke
from dku.findings import Verdict
from dku.trees import Tree, empty_folder, read_tree, write_many, write_small
from engine.types import Mode
from jobs.models import Job
from jobs.queueing.notify import QUEUE
from jobs.services import job_create
from jobs.states import Status
from tests.factories import JobFactory


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    folder = tmp_path / "sent"
    folder.mkdir()
    write_small(folder)
    return folder


def test_read_tree_finds_no_difference_between_equal_trees(sent):
    assert read_tree(sent).differences(read_tree(sent)) == []
    assert read_tree(sent).files == 5


@pytest.mark.parametrize(
    ("harm", "path"),
    [
        (lambda root: (root / ".hidden").unlink(), ".hidden"),
        (lambda root: (root / ".hidden").write_bytes(b"SEEN"), ".hidden"),
        (lambda root: (root / "run.sh").chmod(0o640), "run.sh"),
        (lambda root: os.utime(root / "run.sh"), "run.sh"),
        (lambda root: (root / "take 01/empty folder").rmdir(), "take 01/empty folder"),
        (lambda root: (root / "more").mkdir(), "more"),
    ],
)
def test_tree_differences_name_the_changed_path(sent, harm, path):
    before = read_tree(sent)
    harm(sent)
    assert before.differences(read_tree(sent)) == [path]


def test_write_many_creates_three_thousand_files(tmp_path):
    write_many(tmp_path)
    assert read_tree(tmp_path).files == 3000


def test_the_arena_empties_its_folders_when_it_is_interrupted(transactional_db, clean_redis):
    def interrupted() -> None:
        with arena() as stage:
            write_small(stage.source_root)
            (stage.target_root / "left").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list((home() / "source").iterdir()) == list((home() / "target").iterdir()) == []


def test_the_arena_finishes_its_clean_up_when_the_clean_up_is_interrupted(
    transactional_db, clean_redis, monkeypatch
):
    def interrupt_once(root: Path) -> None:
        monkeypatch.setattr(dku.arena, "empty_folder", empty_folder)
        raise KeyboardInterrupt

    def interrupted() -> None:
        with arena() as stage:
            write_small(stage.source_root)
            monkeypatch.setattr(dku.arena, "empty_folder", interrupt_once)

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list((home() / "source").iterdir()) == []


def test_the_arena_reuses_its_two_portals_when_the_var_folder_changes(
    transactional_db, clean_redis, settings, tmp_path
):
    with arena() as first:
        pass
    settings.VAR_DIR = tmp_path
    with arena() as second:
        assert second.source_root == tmp_path / "dku" / "source"
    assert (first.source.pk, first.target.pk) == (second.source.pk, second.target.pk)


def test_the_arena_admits_only_one_dku_at_a_time(transactional_db, clean_redis):
    with arena(), pytest.raises(ArenaBusy), arena():
        pass


def test_the_arena_cancels_a_job_that_a_killed_dku_left(transactional_db, clean_redis):
    with arena() as stage:
        pass
    left = job_create(
        by=stage.user,
        source_portal=stage.source,
        source_path="a",
        target_portal=stage.target,
        target_path="a",
    )

    with arena():
        left.refresh_from_db()
        assert left.status == Status.CANCELLED


def test_the_smoke_transfer_only_warns_when_every_worker_has_other_work(
    transactional_db, clean_redis
):
    busy = Worker([QUEUE], connection=clean_redis)
    busy.register_birth()
    busy.heartbeat()
    busy.set_state("busy")

    found = smoke.transfer(smoke.CASES[0], 0.2)

    assert found.verdict is Verdict.WARN
    assert "every worker had other work" in found.sentence
    assert Job.objects.get().status == Status.CANCELLED


def _judge(stage, mode: Mode, tree: Tree):
    job: Any = JobFactory(source_portal=stage.source, target_portal=stage.target)
    return smoke._compare(stage, smoke.Case("small folder", write_small, mode), job, tree)


def test_the_smoke_check_fails_a_finished_job_whose_target_differs(transactional_db, clean_redis):
    with arena() as stage:
        for root in (stage.source_root, stage.target_root):
            (root / "small-folder").mkdir()
        write_small(stage.source_root / "small-folder")
        found = _judge(stage, Mode.COPY, read_tree(stage.source_root / "small-folder"))

    assert found.verdict is Verdict.FAIL
    assert "7 paths differ" in found.sentence


def test_the_smoke_check_fails_a_finished_move_that_left_the_source(transactional_db, clean_redis):
    with arena() as stage:
        for root in (stage.source_root, stage.target_root):
            (root / "small-folder").mkdir()
            (root / "small-folder" / "file").touch()
            os.utime(root / "small-folder" / "file", (0, 0))
        found = _judge(stage, Mode.MOVE, read_tree(stage.source_root / "small-folder"))

    assert found.verdict is Verdict.FAIL
    assert "source should be empty, and is not" in found.sentence


def test_the_corruption_check_passes_when_the_engine_catches_a_damaged_byte():
    found = smoke.corruption()

    assert found.verdict is Verdict.PASS, found
    assert found.measured["code"] == engine.VerifyFailed.code
    assert list(home().glob("drill-*")) == []
    assert home() == Path(settings.VAR_DIR) / "dku"


def test_the_corruption_check_fails_when_the_engine_misses_a_damaged_byte(monkeypatch):
    # An engine that does not look: what DKU exists to find.
    monkeypatch.setattr(engine, "run", lambda request, observer: None)
    found = smoke.corruption()

    assert found.verdict is Verdict.FAIL
    assert "did not notice" in found.sentence


def test_the_corruption_check_fails_when_the_damage_reaches_the_target(monkeypatch):
    def careless(request: engine.Request, observer: engine.Observer) -> None:
        Path(request.target.root, "camera.raw").write_bytes(b"damaged")
        raise engine.VerifyFailed("too late")

    monkeypatch.setattr(engine, "run", careless)
    found = smoke.corruption()

    assert found.verdict is Verdict.FAIL
    assert found.details == ("camera.raw",)
