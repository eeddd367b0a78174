"""A sender that means no good, a target with traps in it: nothing outside the staging folder moves.

What a hostile archive may not do is in `test_wire_zip`; here are the other parcels, marks,
commands, and folders that are not what they seem.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.agent import wire
from engine.agent.target.staging.folder import Staging
from engine.agent.wire import AgentError
from tests.rig import hostile
from tests.rig.hostile import EMPTY, NAME, Place, entry, facts, sha


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, xattrs=True)
    yield place
    place.close()


ONE = entry("one", b"content")
LONG = entry("long", bytes(100_000))

#: Streams that end the agent, and what it says then.
REFUSED: dict[str, tuple[bytes, str]] = {
    "dot-dot": (hostile.plain((entry("../canary/new", b"x"), b"x")), "PATH_OUTSIDE_ROOT"),
    "dot-dot further down": (hostile.plain((entry("a/../../x", b"x"), b"x")), "PATH_OUTSIDE_ROOT"),
    "absolute": (hostile.plain((entry("/tmp/x", b"x"), b"x")), "PATH_OUTSIDE_ROOT"),
    "an empty name": (hostile.plain((entry("a//b", b"x"), b"x")), "PATH_OUTSIDE_ROOT"),
    "a slash at the end": (hostile.plain((entry("a/", b"x"), b"x")), "PATH_OUTSIDE_ROOT"),
    "a second name of a file outside": (
        hostile.plain((entry("one", kind="h", link="../../file"), b"")),
        "PATH_OUTSIDE_ROOT",
    ),
    "slices of a file outside": (
        hostile.sliced(entry("../../file", b"xx"), b"xx", (0, 2)),
        "PATH_OUTSIDE_ROOT",
    ),
    "an archive outside": (hostile.whole_archive(b"PK", "../../file"), "PATH_OUTSIDE_ROOT"),
    "an archive with NUL in its name": (hostile.whole_archive(b"PK", "a\0b"), "PATH_OUTSIDE_ROOT"),
    "more data than announced": (
        hostile.head([ONE]) + hostile.data(b"content and more") + hostile.end_entry(),
        "BAD_ARCHIVE",
    ),
    "another entry than announced": (
        hostile.head([ONE]) + (hostile.data(b"content") + hostile.end_entry()) * 2,
        "BAD_ARCHIVE",
    ),
    "an entry left out": (hostile.head([ONE, LONG]) + hostile.end(EMPTY * 2), "BAD_ARCHIVE"),
    "too few digests": (
        hostile.head([ONE]) + hostile.data(b"content") + hostile.end_entry() + hostile.end(),
        "BAD_ARCHIVE",
    ),
    "a slice before the file": (
        hostile.head([ONE], "range", slices=[[-1, 2]]),
        "BAD_ARCHIVE",
    ),
    "a slice behind the file": (hostile.head([ONE], "range", slices=[[6, 2]]), "BAD_ARCHIVE"),
    "a slice of less than nothing": (
        hostile.head([ONE], "range", slices=[[5, -2]]),
        "BAD_ARCHIVE",
    ),
    "a slice left out": (
        hostile.head([ONE], "range", slices=[[0, 7]]) + hostile.end(EMPTY),
        "BAD_ARCHIVE",
    ),
    "a head inside a parcel": (hostile.head([ONE]) * 2, "AGENT_FAILED"),
    "a list that is none": (hostile.head(b"\xff" * 99), "AGENT_FAILED"),
    "a list with a kind of its own": (
        hostile.head(wire.pack_entries([ONE]).replace(b"f", b"p", 1)),
        "AGENT_FAILED",
    ),
}


@pytest.mark.parametrize("sort", REFUSED)
def test_a_hostile_parcel_ends_the_agent_and_writes_nothing_outside(
    place: Place, sort: str
) -> None:
    stream, code = REFUSED[sort]

    assert place.take(stream) == "EndOfStream"

    assert place.errors() == [code]
    assert set(os.listdir(place.staged)) <= {"one", "out", "out_file"}
    place.untouched()


def test_an_entry_below_a_symlink_of_the_same_parcel_is_not_written(place: Place) -> None:
    link = b"../../../canary/folder"
    stream = hostile.plain(
        (entry("way", link, "l"), link),
        (entry("way/new", b"x"), b"x"),
        (entry("way/file", b"x"), b"x"),
        (entry("way/folder", b"", "d"), b""),
        (entry("one", b"", "h", link="way/file"), b""),
    )

    assert place.take(stream) == "EndOfStream"

    assert sorted(place.said[0][0]["done"]["errors"]) == ["1", "2", "3", "4"]
    assert place.said[0][1] == sha(link) + bytes(4 * wire.DIGEST)
    place.untouched()


@pytest.mark.parametrize("parcel", ["file", "zip", "slices", "resumed", "archive"])
def test_a_parcel_is_not_written_through_a_symlink_planted_in_the_staged_tree(
    place: Place, parcel: str
) -> None:
    inside, itself = entry("out/file", b"x"), entry("out_file", b"x")
    stream = {
        "file": hostile.plain((inside, b"x"), (itself, b"x")),
        "zip": hostile.zipped((inside, b"x"), (itself, b"x")),
        "slices": hostile.sliced(itself, b"x", (0, 1)),
        "resumed": hostile.plain((entry("out_file", b"xx"), b"x"), starts={"0": 1}),
        "archive": hostile.whole_archive(b"PK", "out_file", itself),
    }[parcel]

    assert place.take(stream) == "EndOfStream"

    assert "got" not in str(place.said) or min(place.said[0][0]["done"]["errors"]) == "0"
    place.untouched()


def test_an_entry_that_the_sender_gives_up_is_not_removed_through_a_symlink(place: Place) -> None:
    gone = hostile.end_entry(error=["VANISHED", "gone"])
    for path in ("out/file", "out_file"):
        place.take(hostile.head([entry(path, b"x")]) + gone + hostile.end(EMPTY))

    place.untouched()


@pytest.mark.parametrize("parcel", ["slices", "resumed", "complete"])
def test_a_staged_hard_link_to_a_target_file_cannot_be_used_to_change_it(
    place: Place, parcel: str
) -> None:
    there = place.root / "target" / "file"
    os.utime(there, ns=(5, 5))
    place.take(hostile.plain((entry("x", there.read_bytes(), "h", link="file"), b"")))
    before = (there.read_bytes(), there.stat().st_mode, there.stat().st_mtime_ns)
    other = entry("x", b"other bytes", mode=0o777, mtime_ns=9)

    place.take(
        {
            "slices": hostile.sliced(other, b"other bytes", (0, 11)),
            "resumed": hostile.plain((other, b"ther bytes"), starts={"0": 1}),
            "complete": place.command("complete", wire.pack_entries([other]), whole="x"),
        }[parcel]
    )

    assert (there.read_bytes(), there.stat().st_mode, there.stat().st_mtime_ns) == before


def test_a_second_entry_of_the_same_name_is_refused_and_the_first_stays(place: Place) -> None:
    stream = hostile.plain((ONE, b"content"), (entry("one", b"another"), b"another"))

    assert place.take(stream) == "EndOfStream"

    assert list(place.said[0][0]["done"]["errors"]) == ["1"]
    assert (place.staged / "one").read_bytes() == b"content"


@pytest.mark.parametrize("cut", [1, 4, 60, 5000, 60_000])
@pytest.mark.parametrize("parcel", ["file", "zip", "slices"])
def test_a_stream_that_ends_early_proves_nothing(place: Place, parcel: str, cut: int) -> None:
    content = bytes(LONG.size)
    stream = {
        "file": hostile.plain((LONG, content)),
        "zip": hostile.zipped((LONG, content)),
        "slices": hostile.sliced(LONG, content, (0, LONG.size)),
    }[parcel]

    assert place.take(stream[:cut]) == "EndOfStream"

    assert place.said == []
    assert place.take_up() == "done"
    assert place.said == [({"parts": []}, b"")]
    place.untouched()


def test_a_file_whose_digest_differs_from_the_senders_is_not_recorded_as_proven(
    place: Place,
) -> None:
    stream = hostile.head([ONE]) + hostile.data(b"content") + hostile.end_entry()

    place.take(stream + hostile.end(sha(b"something else")))

    assert place.said[0][1] == sha(b"content")
    place.take_up()
    assert place.said[1:] == [({"parts": []}, b"")]


@pytest.mark.parametrize("at", ["7", 1 << 70, None, -1, 3.5, [3], True])
def test_a_mark_with_an_invalid_offset_proves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, at: object
) -> None:
    monkeypatch.setattr("engine.agent.reader.BETWEEN_MARKS", 1)
    stream = hostile.head([ONE]) + hostile.data(b"con") + hostile.mark(at, sha(b"con"))

    place.take(stream + hostile.data(b"tent"))

    place.take_up()
    assert place.said == [({"parts": []}, b"")]


# -- commands --------------------------------------------------------------


def test_a_command_inside_a_payload_is_stored_as_file_content(place: Place) -> None:
    command = place.command("discard", wire.pack_entries([entry("../../file")]))

    place.take(hostile.plain((entry("one", command), command)))

    assert (place.staged / "one").read_bytes() == command
    place.untouched()


@pytest.mark.parametrize("where", ["between", "inside"])
def test_a_command_sealed_with_a_guessed_key_is_not_carried_out(place: Place, where: str) -> None:
    guessed = wire.Seal("11" * 16).frame({"op": "clean", "transfer_id": "t", "undo": True})
    stream = hostile.plain((ONE, b"content"))
    if where == "inside":
        stream = hostile.head([ONE])

    ended = place.take(stream + guessed)

    assert ended == ("AgentError" if where == "between" else "EndOfStream")
    assert place.staged.is_dir()


def test_a_sealed_command_is_carried_out_once_and_its_replay_is_refused(place: Place) -> None:
    first = place.command("discard", wire.pack_entries([ONE]))
    second = place.command("discard", wire.pack_entries([LONG]))

    assert place.take(first + first) == "AgentError"
    assert [body["done"] for body, _ in place.said] == [{"discarded": 1}]
    assert place.take(second) == "AgentError"


@pytest.mark.parametrize("op", ["compare", "discard", "check"])
def test_every_command_refuses_an_entry_list_that_leads_out_of_the_target(
    place: Place, op: str
) -> None:
    blob = wire.pack_entries([entry("../../../canary/file" if op != "compare" else "../canary")])
    more = {"keep_both": False, "by_content": False} if op == "compare" else {}

    place.take(place.command(op, blob, **more))

    place.untouched()
    assert place.errors() == ["PATH_OUTSIDE_ROOT"]


# -- the staging folder itself ---------------------------------------------


def _prepare(folder: Path, resume: bool) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        Staging(fd, "t", 2, "this machine").prepare([], resume)
    finally:
        os.close(fd)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "trap", [NAME, "gate", "fence", "fence.new", "journal", "a1", "a2", "a2.lock"]
)
def test_preparing_the_staging_folder_follows_no_planted_symlink(
    tmp_path: Path, trap: str, resume: bool
) -> None:
    canary, target = tmp_path / "canary", tmp_path / "target"
    for folder in (canary, target / NAME / "a1"):
        folder.mkdir(parents=True)
    (canary / "file").write_text("1")
    (target / NAME / "journal").touch()
    planted = target / trap if trap == NAME else target / NAME / trap
    if planted.is_dir():
        shutil.rmtree(planted)
    planted.unlink(missing_ok=True)
    planted.symlink_to(canary if trap in (NAME, "a1", "a2") else canary / "file")
    before = facts(canary)

    with contextlib.suppress(AgentError, OSError):  # Refused, or the trap was taken away.
        _prepare(target, resume)

    assert facts(canary) == before


def test_a_survey_removes_a_planted_symlink_and_not_what_it_leads_to(place: Place) -> None:
    (place.staged / "folder").mkdir()
    (place.staged / "folder" / "out").symlink_to(place.root / "canary")

    assert place.take_up() == "done"

    assert os.listdir(place.staged) == []
    place.untouched()
