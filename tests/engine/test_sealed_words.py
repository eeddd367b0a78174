"""Commands with the worker's own seal that name other places: a target's agent keeps to its one.

A host that knew the key could do no more than this: an agent does not rely on its secrecy alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.agent.wire import Entry, pack_entries
from tests.rig.hostile import Place

CANARY = "../../canary/file"


def listed(path: str, kind: str = "f", link: str = "", size: int = 11) -> bytes:
    return pack_entries([Entry(path, kind, size, 5, 0o777, 0, link)])


#: What a command is, its arguments, its blob; and the code of its refusal.
ELSEWHERE: dict[str, tuple[str, dict[str, Any], bytes, str]] = {
    "another root": ("open", {"root": "/", "path": "etc"}, b"", "AGENT_FAILED"),
    "above the place": ("open", {"root": "R", "path": ""}, b"", "AGENT_FAILED"),
    "below the place": ("open", {"root": "R", "path": "target/folder"}, b"", "AGENT_FAILED"),
    "beside the place": ("open", {"root": "R", "path": "canary"}, b"", "AGENT_FAILED"),
    "out by dots": ("open", {"root": "R", "path": "target/../canary"}, b"", "AGENT_FAILED"),
    "another inspection": ("inspect", {"root": "/", "path": "etc"}, b"", "AGENT_FAILED"),
    "another transfer": (
        "stage",
        {"root": "R", "path": "target", "transfer_id": "x", "attempt": 1, "options": {}},
        b"",
        "AGENT_FAILED",
    ),
    "another attempt": (
        "stage",
        {"root": "R", "path": "target", "transfer_id": "t", "attempt": 2, "options": {}},
        b"",
        "AGENT_FAILED",
    ),
    "a clean of another": (
        "clean",
        {"transfer_id": "x", "attempt": 1, "undo": True},
        b"",
        "AGENT_FAILED",
    ),
    "a clean with the spare id of another": (
        "clean",
        {"transfer_id": "t", "attempt": 1, "undo": True, "spare_id": "x"},
        b"",
        "AGENT_FAILED",
    ),
    "a real path without its root": ("sync", {"real_root": "/"}, b"", "AGENT_FAILED"),
    "a stat by dots": ("stat", {"path": "../canary/file"}, b"", "PATH_OUTSIDE_ROOT"),
    "a stat by root": ("stat", {"path": "/etc/passwd"}, b"", "PATH_OUTSIDE_ROOT"),
    "a stat of the top": ("stat", {"path": ".."}, b"", "PATH_OUTSIDE_ROOT"),
    "a stat by a link": ("stat", {"path": "out/file"}, b"", "IO_ERROR"),
    "a hash by dots": ("hash", {}, listed("../canary/file"), "PATH_OUTSIDE_ROOT"),
    "a hash by its link": (
        "hash",
        {"at_source": True},
        listed("file", link="../canary/file"),
        "PATH_OUTSIDE_ROOT",
    ),
    "a check by dots": ("check", {}, listed(CANARY), "PATH_OUTSIDE_ROOT"),
    "a comparison by dots": (
        "compare",
        {"keep_both": True, "by_content": True},
        listed("../canary/file"),
        "PATH_OUTSIDE_ROOT",
    ),
    "a discard by dots": ("discard", {}, listed(CANARY), "PATH_OUTSIDE_ROOT"),
    "a discard by root": ("discard", {}, listed("/etc/motd"), "PATH_OUTSIDE_ROOT"),
    "a discard of the fence": ("discard", {}, listed("../fence"), "PATH_OUTSIDE_ROOT"),
    "a discard by a link": ("discard", {}, listed("out/file"), "IO_ERROR"),
    "a folder's discard": ("discard", {}, listed("..", "d"), "PATH_OUTSIDE_ROOT"),
    "a completion by dots": ("complete", {"whole": "x"}, listed(CANARY), "PATH_OUTSIDE_ROOT"),
    "a completion by a link": (
        "complete",
        {"whole": "x"},
        listed("out_file"),
        "PATH_OUTSIDE_ROOT",
    ),
    "the fence as an archive": (
        "publish_archive",
        {"name": "../fence", "digest": "00" * 32, "policy": "overwrite", "keep": True},
        b"",
        "PATH_OUTSIDE_ROOT",
    ),
    "an archive by root": (
        "publish_archive",
        {"name": "/etc/motd", "digest": "00" * 32, "policy": "overwrite", "keep": True},
        b"",
        "PATH_OUTSIDE_ROOT",
    ),
    "a helper by dots": ("fence_out", {"label": "../x"}, b"", "BAD_REQUEST"),
    "a removal": ("remove", {}, listed("file"), "AGENT_FAILED"),
    "a removal of folders": ("remove_folders", {}, listed("folder", "d"), "AGENT_FAILED"),
    "a scan": ("scan", {}, b"", "AGENT_FAILED"),
    "a parcel": ("send", {"head": {}}, b"", "AGENT_FAILED"),
    "no command": ("_carry_out", {}, b"", "AGENT_FAILED"),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    first = {"root": str(tmp_path), "path": "target", "transfer_id": "t", "attempt": 1}
    place.agent._charge.check("stage", first)
    yield place
    place.close()


@pytest.mark.parametrize("sort", ELSEWHERE)
def test_a_sealed_command_that_names_another_place_changes_nothing(
    place: Place, tmp_path: Path, sort: str
) -> None:
    op, arguments, blob, code = ELSEWHERE[sort]
    if arguments.get("root") == "R":
        arguments = {**arguments, "root": str(tmp_path)}

    place.take(place.command(op, blob, **arguments))

    assert place.errors() == [code]
    place.untouched()
    assert os.listdir("/etc").count(".ketter-t.part") == 0


def test_a_hash_of_what_lies_behind_a_link_is_missing(place: Place) -> None:
    place.take(place.command("hash", listed("out/file"), whole="x"))
    place.take(place.command("check", listed("out_file")))

    for body, blob in place.said:
        assert "done" in body
        assert blob.strip(b"\0") == b""
