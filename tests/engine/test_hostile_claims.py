"""Agents that say what they cannot know, name odd places, or answer what was not asked."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, SilentObserver, Strategy
from engine.carry.whole_files import WholeFile, WholeFiles
from engine.parcels.builder import LargeFile
from engine.parcels.spool import Spool
from engine.protocol.fields import SENTENCE, Fields
from engine.protocol.replies import InspectReply
from tests.engine.test_hostile_replies import Stopped
from tests.engine.test_replies import GOOD
from tests.rig import hostile
from tests.rig.lying import Lie, failed_agent, found, reply_to, twist
from tests.rig.transfers import Run

# -- what only the worker knows ------------------------------------------------

TORN = reply_to("send", 'done["torn"], done["errors"] = True, {"0": ["CODE", "x"]}')


@pytest.mark.parametrize("code", ["MADE_UP", "CANCELLED", "HOST_KEY_CHANGED", "REPLACED"])
def test_a_torn_archive_does_not_say_how_the_transfer_ends(
    tree: Path, run: Run, lie: Lie, code: str
) -> None:
    lie(source_commands=TORN.replace("CODE", code))

    failed_agent(lambda: run(strategy=Strategy.ARCHIVE))


def test_a_torn_archive_says_why(tree: Path, run: Run, lie: Lie) -> None:
    lie(source_commands=TORN.replace("CODE", "SOURCE_CHANGED"))

    with pytest.raises(engine.SourceChanged, match="so the archive is incomplete"):
        run(strategy=Strategy.ARCHIVE)


def test_a_torn_archive_without_a_failure_is_the_agents(tree: Path, run: Run, lie: Lie) -> None:
    lie(source_commands=reply_to("send", 'done["torn"] = True'))

    assert "torn" in failed_agent(lambda: run(strategy=Strategy.ARCHIVE))


@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("code", ["CANCELLED", "INTERRUPTED", "HOST_KEY_CHANGED", "AUTH_FAILED"])
def test_an_agent_does_not_say_what_the_worker_has_to_know(
    tree: Path, run: Run, lie: Lie, end: str, code: str
) -> None:
    op = {"source": "send", "target": "receive"}[end]
    lie(**{f"{end}_commands": reply_to(op, f'body = {{"error": ["{code}", "x"]}}')})

    assert code in failed_agent(run)


# -- what a person reads -------------------------------------------------------

REAL = "/r/\x1b]0;TITLE\x07\x1b[2J\r\nDONE: all is well\n\u202e" + "x" * 4000


@pytest.mark.parametrize(
    ("end", "changes", "code"),
    [
        ("source", {"kind": "absent"}, "SOURCE_MISSING"),
        ("source", {"kind": "other"}, "BAD_REQUEST"),
        ("target", {"kind": "file"}, "TARGET_EXISTS"),
        ("target", {"ancestor_ids": [[0, 0]]}, "TARGET_OVERLAPS_SOURCE"),
    ],
)
def test_a_place_is_shown_in_a_few_printable_words(
    tree: Path, run: Run, lie: Lie, end: str, changes: dict[str, object], code: str
) -> None:
    lie(inspect=at_end(tree, end, {"real": REAL, **changes}))
    if code == "SOURCE_MISSING":  # An agent that has found a folder does not look above it.
        shutil.rmtree(tree / "a")

    with pytest.raises(engine.EngineError) as caught:
        run()

    text = str(caught.value)
    assert caught.value.code == code, text
    assert text.isprintable()
    assert len(text) < 2 * SENTENCE
    assert "TITLE" in text


def at_end(tree: Path, end: str, changes: dict[str, object]) -> str:
    """Have the agent of one end find something else at its place; ids are those of the source."""
    folder = tree / {"source": "a", "target": "b"}[end]
    found = (tree / "a").stat()
    if "ancestor_ids" in changes:
        changes = {**changes, "ancestor_ids": [[found.st_dev, found.st_ino]]}
    condition = f'body.get("op") == "inspect" and done["real"] == {str(folder)!r}'
    return twist(condition, f"done.update({changes!r})")


def test_a_place_is_used_as_it_is_and_shown_for_people() -> None:
    values, _ = GOOD["inspect"]
    found = InspectReply.read(Fields({**values, "real": REAL}, b"", "x"))

    assert found.real == REAL
    assert found.shown.isprintable()
    assert len(found.shown) <= SENTENCE


# -- where a part of a file lies -----------------------------------------------


@pytest.mark.parametrize(
    "change",
    ['part["upto"] = part["file"][1] + 1', 'part["slices"] = [[part["file"][1], 8 << 20]]'],
)
@pytest.mark.parametrize("streams", [1, 2])
def test_no_part_of_a_file_lies_behind_its_end(
    tree: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch, change: str, streams: int
) -> None:
    """A parcel of less than no bytes would be planned, and the figures of the job be wrong."""
    monkeypatch.setattr("engine.parcels.builder.LARGE", 1 << 20)
    with pytest.raises(engine.Interrupted):
        run(Stopped(), resume=True)
    (tree / "a" / "large").write_bytes(b"content" * 400_000)
    found = (tree / "a" / "large").stat()
    part = ["large", found.st_size, found.st_mtime_ns, found.st_ino]
    made_up = f'part = {{"file": {part}, "upto": 0, "slices": []}}; {change}'
    lie(target_commands=twist('"parts" in body', f'{made_up}; body = {{"parts": [part]}}'))

    assert "a part of a file" in failed_agent(lambda: run(resume=True, streams=streams))


# -- sizes ---------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 2])
def test_a_file_of_any_size_is_refused_before_it_costs_memory(
    tree: Path, run: Run, lie: Lie, streams: int
) -> None:
    lie(source_commands=found(("huge", "f", 1 << 62, "")))

    with pytest.raises(engine.NoSpace):
        run(NotForever(), streams=streams)

    assert [path.name for path in (tree / "b").iterdir()] == ["private"]


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("remove", 'done["removed"] = 1 << 62'),
        ("remove", 'done["kept"] = [["report", "IO_ERROR", "x"]]'),
        ("remove_folders", 'done["removed"], done["full"] = 1, 1'),
        ("remove_folders", 'done["full"] = 1 << 62'),
    ],
)
def test_a_source_removes_no_more_than_it_was_asked_to(
    tree: Path, run: Run, lie: Lie, op: str, change: str
) -> None:
    """Folders are asked about as long as some go: a source that says so for ever holds the job."""
    lie(source_commands=reply_to(op, change))

    assert "more entries" in failed_agent(lambda: run(NotForever(), mode=Mode.MOVE))


# -- answers that were not asked for -------------------------------------------


class NotForever(SilentObserver):
    """A worker that gives up if an answer has it wait without end."""

    def __init__(self) -> None:
        self.until = time.monotonic() + 6.0

    def checkpoint(self) -> None:
        if time.monotonic() > self.until:
            raise engine.Cancelled("it hangs")


@pytest.fixture
def sliced(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that goes in slices over two streams."""
    monkeypatch.setattr("engine.parcels.builder.LARGE", 1 << 20)
    monkeypatch.setattr("engine.parcels.builder.SLICE", 1 << 18)
    monkeypatch.setattr("engine.plan.streams.WORTH_A_STREAM", 1 << 18)
    (tree / "a" / "large").write_bytes(b"content" * 400_000)
    return tree


@pytest.mark.parametrize(
    ("op", "strategy"),
    [
        ("expect", Strategy.FILES),
        ("expect", Strategy.ARCHIVE),
        ("close_archive", Strategy.ARCHIVE),
        ("receive", Strategy.FILES),
    ],
)
def test_a_target_answers_an_order_once(
    tree: Path, run: Run, lie: Lie, op: str, strategy: Strategy
) -> None:
    lie(target_commands=reply_to(op, "more = [(body, blob)]"))

    failed_agent(lambda: run(NotForever(), strategy=strategy))


@pytest.mark.parametrize("op", ["discard", "complete", "close_archive", "fence_out"])
def test_a_target_answers_no_order_that_was_not_given(
    tree: Path, run: Run, lie: Lie, op: str
) -> None:
    values, blob = GOOD.get(op, ({}, b""))
    more = f"more = [({{'done': {values}, 'op': {op!r}}}, {blob!r})]"
    lie(target_commands=reply_to("expect", more))

    assert f"unexpected reply to {op}" in failed_agent(lambda: run(NotForever()))


def test_a_target_answers_an_order_once_on_each_stream(sliced: Path, run: Run, lie: Lie) -> None:
    lie(target_commands=reply_to("expect", "more = [(body, blob)]"))

    assert "unexpected reply to expect" in failed_agent(lambda: run(NotForever(), streams=2))


@pytest.mark.parametrize("of_target", [False, True])
def test_each_end_has_one_digest_of_a_file_in_slices(of_target: bool) -> None:
    nothing: Any = None
    files = WholeFiles(nothing, Spool(), lambda large: ())
    files._reading["large"] = WholeFile(LargeFile(hostile.entry("large")), nothing)
    one, other = hostile.sha(b"one"), hostile.sha(b"other")

    assert files.digest_came("large", one, of_target) is None
    with pytest.raises(engine.AgentFailed, match="unexpected digest of large"):
        files.digest_came("large", other, of_target)
    whole = files.digest_came("large", other, not of_target)
    assert whole is not None
    assert not whole.is_proven
    with pytest.raises(engine.AgentFailed, match="unexpected digest of large"):
        files.digest_came("large", one, not of_target)


def test_a_source_answers_once_about_a_file_in_slices(sliced: Path, run: Run, lie: Lie) -> None:
    lie(
        source_commands=reply_to("hash", "more = [(body, blob)]"),
        target_commands=reply_to("complete", '__import__("time").sleep(0.5)'),
    )

    failed_agent(lambda: run(NotForever(), streams=2))


def test_a_source_reports_no_digest_of_another_file(sliced: Path, run: Run, lie: Lie) -> None:
    lie(source_commands=reply_to("hash", 'done["whole"] = "other"'))

    assert "other" in failed_agent(lambda: run(NotForever(), streams=2))


def test_an_archive_is_proven_before_it_is_published(tree: Path, run: Run, lie: Lie) -> None:
    """The source has no digest of it: then the target's is not asked for either."""
    lie(source_commands=reply_to("send", 'done["archive"] = ""'))

    failed_agent(lambda: run(NotForever(), strategy=Strategy.ARCHIVE))

    assert [path.name for path in (tree / "b").iterdir()] == ["private"]
