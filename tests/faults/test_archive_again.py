"""A move as one archive that is killed while it removes its source, and begins again."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import pytest

import engine
from engine import Endpoint, Mode, OnConflict, Request, Strategy
from jobs.models import Job
from jobs.orders import problems_of
from tests.factories import JobFactory, PortalFactory

FILES = 30
OVERWRITES = (OnConflict.OVERWRITE, OnConflict.OVERWRITE_OLDER)


@pytest.fixture
def delivered(tmp_path: Path) -> Request:
    """A second attempt, where the first had delivered the archive and removed some files."""
    folder = tmp_path / "day1"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"f{number:02}").write_text(f"content {number}")
    request = Request(
        Endpoint(str(tmp_path), "day1"),
        Endpoint(str(tmp_path), "in"),
        "again",
        resume=True,
        strategy=Strategy.ARCHIVE,
    )
    engine.run(request)
    for number in range(10):
        (folder / f"f{number:02}").unlink()
    return request._replace(attempt=2, mode=Mode.MOVE)


@pytest.mark.parametrize("policy", sorted(set(OnConflict) - set(OVERWRITES)))
def test_the_first_attempts_archive_stays_whole_though_a_later_one_does_not_know_it(
    policy: OnConflict, delivered: Request, tmp_path: Path
) -> None:
    with contextlib.suppress(engine.TargetExists):
        engine.run(delivered._replace(on_conflict=policy))
    with zipfile.ZipFile(tmp_path / "in" / "day1.zip") as archive:
        assert len([name for name in archive.namelist() if not name.endswith("/")]) == FILES


@pytest.mark.parametrize("policy", OVERWRITES)
def test_a_move_never_replaces_the_whole_archive_by_one_of_what_is_left(
    policy: OnConflict, delivered: Request, tmp_path: Path
) -> None:
    archive = tmp_path / "in" / "day1.zip"
    before = archive.read_bytes()
    with pytest.raises(engine.BadRequest, match="cannot overwrite"):
        engine.run(delivered._replace(on_conflict=policy))
    assert archive.read_bytes() == before


@pytest.mark.parametrize("policy", OVERWRITES)
def test_such_a_job_is_refused_at_launch(policy: OnConflict, db: None) -> None:
    order: Job = JobFactory.build(
        mode="move",
        strategy="archive",
        on_conflict=policy,
        source_portal=PortalFactory.create(),
        target_portal=PortalFactory.create(),
    )
    assert "replace the whole archive" in problems_of(order)["on_conflict"].message
