"""Nothing that appears at the target meanwhile is replaced, whatever the file system can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.agent.target import compare
from engine.agent.target.publish import publisher
from engine.agent.target.publish.free_names import FreeNames
from engine.agent.target.publish.had_before import FoldersBefore
from engine.agent.target.publish.opened_folders import OpenedFolders
from engine.agent.target.publish.publisher import Publisher
from engine.agent.tree import Tree
from engine.agent.wire import FILE, FOLDER, LINK, AgentError

pytestmark = pytest.mark.fast

WAYS = ("_rename_exclusively", "_link", "_look")


class Place:
    """A staging tree and a target; `arrive` is called once each place was looked at."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.staging, self.target = root / "staging", root / "target"
        self.staging.mkdir()
        self.target.mkdir()
        self.arriving: dict[str, Callable[[Path], Any]] = {}
        look = compare.compare_one
        passes: list[str] = []

        def compare_and_arrive(tree: Tree, entry: Any, path: str, *more: Any) -> str:
            state = look(tree, entry, path, *more)
            passes.append(path)
            # The second look is that of the pass that renames.
            if passes.count(path) == 2 and (arrive := self.arriving.pop(path, None)):
                arrive(self.target / path)
            return state

        patch.setattr(publisher, "compare_one", compare_and_arrive)

    def put(self, path: str, content: str = "ours") -> None:
        file = self.staging / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def publish(self, policy: str) -> None:
        staging, target = (Tree(os.open(at, os.O_RDONLY)) for at in (self.staging, self.target))
        mark = os.open(self.staging.parent, os.O_RDONLY)
        paths = [str(path.relative_to(self.staging)) for path in self.staging.rglob("*")]
        files = sum(len(names) for _, _, names in os.walk(self.staging))
        try:
            with OpenedFolders(target, mark) as opened:
                place = Publisher(
                    staging, target, policy, opened, FoldersBefore(mark), lambda: None
                )
                place.publish(files)
            for reason in filter(None, map(place.refused.reason, paths)):
                raise reason
        finally:
            os.close(mark)
            staging.close()
            target.close()

    def content(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.target)): path.read_text() if path.is_file() else "folder"
            for path in sorted(self.target.rglob("*"))
        }


@pytest.fixture(params=range(len(WAYS)), ids=WAYS)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Place:
    """A place on a file system that has only this way and those behind it."""
    for missing in WAYS[: request.param]:
        monkeypatch.setattr(FreeNames, missing, unsupported)
    return Place(tmp_path, monkeypatch)


def unsupported(self: FreeNames, kind: str, name: str, *_: Any) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)


def a_file(path: Path) -> None:
    path.write_text("theirs")
    os.utime(path, ns=(1 << 61, 1 << 61))


def an_old_file(path: Path) -> None:
    path.write_text("theirs")
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("policy", ["fail", "skip", "overwrite-older"])
@pytest.mark.parametrize("arrive", [a_file, Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_a_file_that_appears_meanwhile_stays_as_it_is(
    place: Place, policy: str, arrive: Callable[[Path], Any]
) -> None:
    place.put("x/f1")
    (place.target / "x").mkdir()
    place.arriving["x/f1"] = arrive

    with pytest.raises(AgentError, match="x/f1 has appeared at the target meanwhile") as caught:
        place.publish(policy)

    assert caught.value.code == "TARGET_EXISTS"
    there = place.target / "x" / "f1"
    assert there.is_dir() or there.is_symlink() or there.read_text() == "theirs"
    assert (place.staging / "x" / "f1").read_text() == "ours"


@pytest.mark.parametrize(
    ("policy", "arrive", "expected"),
    [
        ("overwrite", a_file, {"f": "ours"}),
        ("overwrite", an_old_file, {"f": "ours"}),
        ("overwrite-older", an_old_file, {"f": "ours"}),
        ("keep-both", a_file, {"f": "theirs", "f (2)": "ours"}),
        ("keep-both", Path.mkdir, {"f": "folder", "f (2)": "ours"}),
    ],
)
def test_the_policy_decides_about_a_file_that_appears_meanwhile(
    place: Place, policy: str, arrive: Callable[[Path], Any], expected: dict[str, str]
) -> None:
    place.put("f")
    place.arriving["f"] = arrive

    place.publish(policy)

    assert place.content() == expected


def test_a_second_name_that_appears_meanwhile_is_not_replaced(place: Place) -> None:
    place.put("f")
    a_file(place.target / "f")
    look = compare.compare_one
    seen: list[str] = []

    def appears(tree: Tree, entry: Any, path: str, *more: Any) -> str:
        state = look(tree, entry, path, *more)
        if path == "f (2)" and not seen:
            seen.append(path)
            a_file(place.target / path)
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "compare_one", appears)
        place.publish("keep-both")

    assert place.content() == {"f": "theirs", "f (2)": "theirs", "f (3)": "ours"}


@pytest.mark.parametrize("policy", ["fail", "skip", "overwrite", "overwrite-older", "keep-both"])
def test_a_folder_that_appears_meanwhile_is_entered(place: Place, policy: str) -> None:
    place.put("folder/ours")
    place.put("folder/deep/ours")

    def make(path: Path) -> None:
        path.mkdir()
        a_file(path / "theirs")

    place.arriving["folder"] = make

    place.publish(policy)

    assert place.content() == {
        "folder": "folder",
        "folder/deep": "folder",
        "folder/deep/ours": "ours",
        "folder/ours": "ours",
        "folder/theirs": "theirs",
    }


@pytest.mark.parametrize("policy", ["fail", "skip", "overwrite"])
def test_a_file_in_place_of_a_folder_that_appears_meanwhile_stays(
    place: Place, policy: str
) -> None:
    place.put("folder/ours")
    place.arriving["folder"] = a_file

    with pytest.raises(AgentError, match="folder has appeared at the target meanwhile"):
        place.publish(policy)

    assert place.content() == {"folder": "theirs"}


@pytest.mark.parametrize("policy", ["fail", "skip", "overwrite", "keep-both"])
def test_an_agent_that_died_between_both_names_of_a_file_leaves_no_conflict(
    place: Place, policy: str
) -> None:
    place.put("x/f1")
    (place.target / "x").mkdir()
    os.link(place.staging / "x" / "f1", place.target / "x" / "f1")

    place.publish(policy)

    assert place.content() in (
        {"x": "folder", "x/f1": "ours"},
        {"x": "folder", "x/f1": "ours", "x/f1 (2)": "ours"},  # keep-both
    )
    assert not (place.staging / "x" / "f1").exists()


@pytest.mark.parametrize("kind", [FILE, LINK, FOLDER])
@pytest.mark.parametrize("refused", range(3), ids=("none", *WAYS[:2]))
def test_each_way_renames_every_kind_of_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, refused: int
) -> None:
    for missing in WAYS[:refused]:
        monkeypatch.setattr(FreeNames, missing, unsupported)
    old = tmp_path / "old ä"
    if kind == FILE:
        old.write_text("ours")
    elif kind == LINK:
        old.symlink_to("nowhere")
    else:
        old.mkdir()
    folder = os.open(tmp_path, os.O_RDONLY)
    names = FreeNames()

    names.rename(kind, old.name, folder, "new", folder)

    assert sorted(os.listdir(tmp_path)) == ["new"]
    (tmp_path / "third").mkdir()
    with pytest.raises(FileExistsError):
        names.rename(kind, "new", folder, "third", folder)
    os.close(folder)


def test_a_refusal_of_this_one_entry_is_the_error_of_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM may mean that the file system has no links, or that this entry may not be renamed."""

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "not this one")

    for way in WAYS[:2]:
        monkeypatch.setattr(FreeNames, way, refused)
    monkeypatch.setattr(os, "rename", refused)
    folder = os.open(tmp_path, os.O_RDONLY)
    names = FreeNames()

    with pytest.raises(PermissionError, match="not this one"):
        names.rename(FILE, "a", folder, "b", folder)

    assert len(names._ways) == 3
    os.close(folder)
