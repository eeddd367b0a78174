"""A root is one folder: where another one is on record, nothing is read, written or removed."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, Mode, Phase, Request, SilentObserver, Strategy
from engine.agent import inspect
from engine.agent.context import Context
from engine.agent.wire import AgentError
from engine.proof.verify import verify
from tests.rig.hostile import facts
from tests.rig.lying import Lie
from tests.rig.observers import Meddler
from tests.rig.sshd import Sshd
from tests.rig.transfers import Run, through


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Roots in a folder of another user's, and what nobody may touch."""
    for name in ("home/outgoing", "home/incoming", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/outgoing/file").write_bytes(b"ours")
    (tmp_path / "secret/key").write_bytes(b"secret")
    return tmp_path / "home"


def swap(root: Path, to: Path) -> None:
    """What the owner of the folder above may do."""
    root.rename(root.with_name(f"{root.name}-2"))
    root.symlink_to(to)


def ends(home: Path, sshd: Sshd | None, **changes: str) -> dict[str, Any]:
    ssh = through(sshd) if sshd else None
    return {
        side: Endpoint(str(home / name), "", ssh, changes.get(side, str(home / name)))
        for side, name in (("source", "outgoing"), ("target", "incoming"))
    }


@pytest.mark.parametrize("by", ["local", "ssh"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("swapped", ["outgoing", "incoming", "above"])
def test_a_root_that_leads_elsewhere_than_recorded_is_refused(
    home: Path, run: Run, sshd: Sshd, swapped: str, mode: Mode, by: str
) -> None:
    secret = home.parent / "secret"
    if swapped == "above":
        for name in ("outgoing", "incoming"):
            (secret / name).mkdir()
        swap(home, secret)
    else:
        swap(home / swapped, secret)
    before = facts(home.parent)

    with pytest.raises(engine.RootMoved) as caught:
        run(mode=mode, **ends(home, sshd if by == "ssh" else None))

    assert (caught.value.code, caught.value.retry) == ("ROOT_MOVED", "needs_person")
    assert caught.value.of_target is (swapped == "incoming")
    for said in ("leads to", str(secret), str(home)):
        assert said in str(caught.value)
    assert facts(home.parent) == before


def test_a_symlinked_root_works_when_it_leads_to_the_recorded_folder(home: Path, run: Run) -> None:
    (home / "raid").symlink_to("outgoing")
    source = Endpoint(str(home / "raid"), "", None, str(home / "outgoing"))

    assert run(**{**ends(home, None), "source": source}).files == 1


def test_a_recorded_root_that_does_not_exist_is_reported_as_missing(home: Path, run: Run) -> None:
    source = Endpoint(str(home / "disk" / "link"), "", None, str(home / "elsewhere"))

    with pytest.raises(engine.RootMissing):
        run(**{**ends(home, None), "source": source})


class Rooted(SilentObserver):
    """Keeps what it is told of the roots, and when."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def rooted(self, source: str, target: str) -> None:
        self.said.append((source, target))

    def phase(self, phase: Phase) -> None:
        self.said.append(phase)


def test_the_observer_learns_the_real_roots_before_the_scan(home: Path, run: Run) -> None:
    (home / "raid").symlink_to("outgoing")
    watch = Rooted()

    run(
        watch,
        source=Endpoint(str(home / "raid"), ""),
        target=Endpoint(str(home / "incoming"), "deep/er"),
    )

    found = (str(home / "outgoing"), str(home / "incoming"))
    assert watch.said[:3] == [Phase.PREFLIGHT, found, Phase.SCAN]


def test_an_observer_that_rejects_the_roots_stops_a_move_before_any_write(
    home: Path, run: Run
) -> None:
    class Knowing(SilentObserver):
        def rooted(self, source: str, target: str) -> None:
            raise engine.RootMoved("elsewhere")

    before = facts(home)
    with pytest.raises(engine.RootMoved):
        run(Knowing(), mode=Mode.MOVE, **ends(home, None, source="", target=""))

    assert facts(home) == before


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_root_that_is_swapped_during_a_transfer_is_not_followed(
    home: Path, run: Run, mode: Mode, recorded: bool
) -> None:
    """Also where nothing is on record: the first look counts for the whole transfer."""
    secret = home.parent / "secret"

    def meddle() -> None:
        for name in ("outgoing", "incoming"):
            swap(home / name, secret)

    before = facts(secret)
    options = ends(home, None) if recorded else ends(home, None, source="", target="")
    with contextlib.suppress(engine.RootMoved):  # What is open stays open, and may do.
        run(Meddler(Phase.TRANSFER, meddle), mode=mode, **options)

    assert facts(secret) == before


@pytest.mark.parametrize(
    ("when", "strategy"),
    [
        (Phase.TRANSFER, Strategy.AUTO),
        (Phase.PUBLISH, Strategy.AUTO),
        (Phase.PUBLISH, Strategy.ARCHIVE),
    ],
)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_target_folder_that_is_moved_away_meanwhile_has_received_nothing(
    home: Path, run: Run, when: Phase, mode: Mode, strategy: Strategy
) -> None:
    """Another folder lies in its place then, with other files of the same names."""
    target = home / "incoming" / "deep"
    target.mkdir()

    def meddle() -> None:
        target.rename(target.with_name("away"))
        target.mkdir()
        (target / "file").write_bytes(b"forged")

    options = ends(home, None) | {"target": Endpoint(str(home / "incoming"), "deep")}
    with pytest.raises(engine.RootMoved, match="was moved away"):
        run(Meddler(when, meddle), mode=mode, strategy=strategy, **options)

    assert (home / "outgoing/file").read_bytes() == b"ours"
    assert [path.name for path in target.iterdir()] == ["file"]
    assert (target / "file").read_bytes() == b"forged"


@pytest.mark.parametrize("leaves", ["nothing", "a folder", "a link"])
def test_a_flush_before_a_proof_refuses_a_folder_that_was_moved_away(
    tmp_path: Path, leaves: str
) -> None:
    """A move in which the target has all files already publishes nothing."""
    root = tmp_path / "root"
    root.mkdir()
    context = Context()
    context.open(str(root), "", make=False)
    inspect.Inspector(context).do_sync(b"")
    root.rename(tmp_path / "away")
    if leaves == "a folder":
        root.mkdir()
    elif leaves == "a link":
        root.symlink_to("away")

    with pytest.raises(AgentError) as caught:
        inspect.Inspector(context).do_sync(b"")

    context.tree.close()
    assert caught.value.code == "ROOT_MOVED"


@pytest.mark.parametrize("clears", ["discard", "verify"])
def test_discard_and_verify_refuse_a_swapped_root(home: Path, clears: str) -> None:
    secret = home.parent / "secret"
    (secret / ".ketter-t.part").mkdir()
    swap(home / "incoming", secret)
    (home / "manifest").write_bytes(b"")
    at = Endpoint(str(home / "incoming"), "", None, str(home / "incoming"))
    before = facts(home.parent)
    call: Callable[[], object] = lambda: verify(home / "manifest", at)  # noqa: E731
    if clears == "discard":
        call = lambda: engine.discard(Request(at, at, "t"))  # noqa: E731

    with pytest.raises(engine.RootMoved):
        call()

    assert facts(home.parent) == before


def test_an_agent_keeps_to_the_root_it_has_seen_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "root").symlink_to("a")
    context = Context()
    context.open(str(tmp_path / "root"), "", make=False)
    (tmp_path / "root").unlink()
    (tmp_path / "root").symlink_to("b")

    with pytest.raises(AgentError) as caught:
        context.open(str(tmp_path / "root"), "", make=True)

    assert caught.value.code == "ROOT_MOVED"


# -- who else could swap it -------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give folders to other users")
@pytest.mark.parametrize(
    ("above", "inner", "is_exposed"),
    [
        ((0, 0, 0o755), (0, 0, 0o755), False),
        ((0, 0, 0o755), (4711, 0, 0o755), False),  # Whose the root is does not matter then.
        ((0, 0, 0o777), (0, 0, 0o755), True),
        ((0, 0, 0o1777), (0, 0, 0o755), False),
        ((0, 0, 0o1777), (4711, 0, 0o755), True),
        ((4711, 0, 0o755), (0, 0, 0o755), True),
        ((4711, 0, 0o1755), (0, 0, 0o755), True),
        ((0, 4711, 0o775), (0, 0, 0o755), True),
        ((0, 4711, 0o755), (0, 0, 0o755), False),
        ((0, 0, 0o775), (0, 0, 0o755), False),
    ],
)
def test_exposed_to_names_the_folder_in_which_other_users_may_swap_the_root(
    above: tuple[int, int, int], inner: tuple[int, int, int], is_exposed: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="ketter-exposed-", dir="/tmp") as folder:
        root = Path(folder, "above", "root")
        root.mkdir(parents=True)
        for path, (user, group, mode) in ((root.parent, above), (root, inner)):
            os.chown(path, user, group)
            path.chmod(mode)

        assert inspect.exposed_to(str(root)) == ([str(root.parent)] if is_exposed else [])


@pytest.mark.parametrize(
    ("tag", "bits", "number", "is_exposed"),
    [
        (0x02, 7, 4711, True),
        (0x02, 5, 4711, False),
        (0x02, 7, os.geteuid(), False),
        (0x08, 7, 4711, True),
        (0x08, 5, 4711, False),
    ],
)
def test_exposed_to_names_a_folder_whose_acl_lets_others_swap_the_root(
    tag: int, bits: int, number: int, is_exposed: bool
) -> None:
    """The mask of an ACL stands where the group's bits are, and the group is this user's own."""
    anyone = 0xFFFFFFFF
    entries = [(1, 7, anyone), (4, 5, anyone), (0x10, 7, anyone), (0x20, 5, anyone)]
    with tempfile.TemporaryDirectory(prefix="ketter-exposed-", dir="/tmp") as folder:
        root = Path(folder, "above", "root")
        root.mkdir(parents=True)
        os.chown(root.parent, -1, os.geteuid())
        packed = [struct.pack("<HHI", *entry) for entry in sorted([*entries, (tag, bits, number)])]
        acl = struct.pack("<I", 2) + b"".join(packed)
        try:
            os.setxattr(root.parent, "system.posix_acl_access", acl)
        except OSError as error:
            pytest.skip(f"no ACLs in {folder}: {error}")

        assert inspect.exposed_to(str(root)) == ([str(root.parent)] if is_exposed else [])


# -- what a host says about a place ------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "kind=5",
        "kind='door'",
        "free_inodes=[]",
        "ancestor_ids='x'",
        "ancestor_ids=[]",
        "ancestor_ids=[[1]]",
        "ancestor_ids=[['a', 1]]",
        "cores='many'",
        "name_max='a'",
        "free='x'",
        "free=float('nan')",
        "real=None",
        "root='relative'",
        "root='/' + 'A' * 3000000",
        "host='a\\0b'",
        "host='\\ud800x'",
        "has_root=1",
        "below_root=7",
        "machine=[]",
    ],
)
@pytest.mark.parametrize("asked_by", ["transfer", "probe"])
def test_an_invalid_inspect_reply_fails_a_transfer_and_a_probe(
    home: Path, run: Run, lie: Lie, said: str, asked_by: str
) -> None:
    lie(
        inspect="\n_inspect = inspect_place\ndef inspect_place(*places):\n"
        f"    return dict(_inspect(*places), {said})\n"
    )

    asked: dict[str, Callable[[], object]] = {
        "probe": lambda: engine.probe(Endpoint(str(home))),
        "transfer": lambda: run(**ends(home, None)),
    }
    with pytest.raises(engine.AgentFailed):
        asked[asked_by]()
