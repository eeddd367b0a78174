"""The one oracle: what must be true of a transfer whatever happened to it.

It sees both trees before a job begins, may glance at them while it runs, and
judges them, the trail, the processes, Redis and the disk once it has ended. The
numbers are those of the invariants in `rows`; the eighth (flat memory) cannot be
seen afterwards, and has a test of its own. That each check can fail is shown by
`test_oracle`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import django_rq

from engine.proof import manifest as manifests
from jobs.models import Job, JobEvent
from jobs.states import Status
from tests.rig.interrupted import whole
from tests.rig.sshd import marked
from tests.rig.trees import Entry, assert_equal_trees, entry_of, snapshot

#: Seconds that processes get to go away by themselves once a job has ended.
GOING = 15.0
#: The code of the last event, by how a job ended; a failed one ends with its error's.
LAST_CODES = {
    Status.DONE: {"DONE"},
    Status.PARTIAL: {"PARTIAL"},
    Status.CANCELLED: {"CANCELLED", "STAGING_LEFT", "STAGING_CLEARED"},
}
TOP = b"."

Tree = dict[bytes, Entry]
Left = TypeVar("Left", bound=Collection[Any])


@dataclass(frozen=True)
class Surroundings:
    """What a job must leave alone, and where it might leave something behind.

    `ours` are processes that live on; anything else that bears `mark` in its
    environment, or that `sessions` finds, has to be gone. `logs` hold what workers said.
    """

    roots: Sequence[Path]
    quiet: Sequence[Path] = ()
    temp: Path | None = None
    mark: str = ""
    ours: Callable[[], Collection[int]] = frozenset
    sessions: Callable[[], Collection[int]] = frozenset
    secrets: Sequence[str] = ()
    logs: Sequence[Path] = ()


@dataclass
class Oracle:
    """Watches over one transfer from the folder `source` to the folder `target`."""

    source: Path
    target: Path
    around: Surroundings
    before: Tree = field(init=False)
    there: Tree = field(init=False)
    _quiet: dict[Path, Tree] = field(init=False)

    def __post_init__(self) -> None:
        self.before = whole(self.source)
        self.there = whole(self.target) if self.target.exists() else {}
        self._quiet = {path: whole(path) for path in self.around.quiet}

    def trees(self) -> tuple[Tree, Tree]:
        """Both trees as they are now."""
        return whole(self.source), whole(self.target) if self.target.exists() else {}

    def glance(self) -> None:
        """1, 2, 7: what must be true at any moment, also while the job runs."""
        held = names_below(self.source)
        arrived = snapshot_of_final(self.target)
        for path, entry in arrived.items():
            if entry.kind == "folder":
                continue
            known = [tree for tree in (self.before, self.there) if path in tree]
            assert known, f"2: {path!r} is at the target, and was never at the source"
            as_sent = any(_holds(tree, path, entry) for tree in known)
            assert as_sent, f"2: {path!r} is not as it was sent"
        for path, entry in self.before.items():
            if entry.kind != "folder" and path not in held:
                is_safe = _holds(arrived, path, entry)
                assert is_safe, f"1: {path!r} is neither at the source nor at the target"
        self._no_secret(_command_lines(self.around.mark), "a process list")

    def judge(
        self, job: Job, *, status: Status = Status.DONE, missing: Collection[bytes] = ()
    ) -> None:
        """All that must be true once a job has ended like that; `missing` was not delivered."""
        job.refresh_from_db()
        told = " ".join(f"{event.seq}:{event.code}" for event in _trail(job))
        assert job.status == status, f"{job.status}: {job.error_message} ({told})"
        try:
            self.glance()
            self.sources_gone_are_proven(job)
            self._tree_is_as_undisturbed(job, missing)
            self.no_debris()
            self._one_attempt_published(job)
            self.trail_ends_once(job)
            self.nothing_else_changed()
            self.secrets_are_kept(job)
        except AssertionError as error:
            error.add_note(f"{self.target}: {told}")
            raise

    def sources_gone_are_proven(self, job: Job) -> None:
        """1: a copy took nothing; what a move took is on record with its digest, or was there."""
        now = whole(self.source)
        if job.mode == "copy":
            _assert_equal("1: the source of a copy", self.before, now)
            return
        gone = {p: e for p, e in self.before.items() if e.kind != "folder" and p not in now}
        proven = {path: digest for _, path, digest, _ in _manifests(job)}
        unproven = {p: e for p, e in gone.items() if proven.get(p) != _digest(e)}
        # What was there already is proven by the digests of both ends, and only counted. In a
        # first attempt it is known what that was. A later one also finds what an earlier one
        # had published and died before writing down: no record says which those are.
        known = self.there if job.attempt == 1 else self.trees()[1]
        unknown = [path for path, entry in unproven.items() if not _holds(known, path, entry)]
        assert not unknown, f"1: removed without proof: {unknown[:5]}"
        assert len(unproven) <= job.files_skipped, f"1: removed unseen: {list(unproven)[:5]}"
        if job.status == Status.DONE:
            left = sorted(set(now) - {TOP})
            assert not left, f"3: a move left {left[:5]} at the source"

    def _tree_is_as_undisturbed(self, job: Job, missing: Collection[bytes]) -> None:
        arrived = whole(self.target) if self.target.exists() else {}
        if job.status not in {Status.DONE, Status.PARTIAL}:
            lost = self.there.keys() - arrived.keys()
            assert not lost, f"3: {sorted(lost)[:5]} are gone from the target"
            return
        expected = {**self.there, **{p: e for p, e in self.before.items() if p not in missing}}
        if self.there:
            expected[TOP] = arrived[TOP]  # It was not made by the job, and got new entries.
        _assert_equal("3: the target", expected, arrived)

    def no_debris(self) -> None:
        """3: nothing is left at the roots, of processes, or in the temporary folder."""
        found = [path for root in self.around.roots for path in debris(root)]
        assert not found, f"3: left behind: {found[:5]}"
        left = wait_until_gone(self.leftovers)
        assert not left, f"3: still running: {left}"
        if self.around.temp:
            # A killed worker's are swept away by the others, at their next look.
            names = wait_until_gone(self._temporary)
            assert not names, f"3: left in the temporary folder: {names}"

    def _temporary(self) -> list[str]:
        assert self.around.temp
        return [name for name in os.listdir(self.around.temp) if "ketter" in name]

    def leftovers(self) -> dict[int, str]:
        """Processes of this transfer that still run, with their command lines."""
        ours = set(self.around.ours())
        pids = {*(marked(self.around.mark) if self.around.mark else ()), *self.around.sessions()}
        return {pid: command_line(pid)[:80] for pid in pids - ours}

    def _one_attempt_published(self, job: Job) -> None:
        by: dict[bytes, int] = {}
        for attempt, path, _, state in _manifests(job):
            if state in {"published", "source_removed"} and self.before[path].kind != "folder":
                assert by.setdefault(path, attempt) == attempt, f"4: {path!r} was published twice"
        started = [event.attempt for event in _trail(job) if event.code == "STARTED"]
        assert started == list(range(1, job.attempt + 1)), f"4: attempts that began: {started}"

    def trail_ends_once(self, job: Job) -> None:
        """5: one end, with the event that says why; nobody wrote late."""
        trail = _trail(job)
        assert [event.seq for event in trail] == list(range(1, len(trail) + 1)), "5: seq has gaps"
        last = LAST_CODES.get(Status(job.status), {job.error_code})
        assert trail[-1].code in last, f"5: the trail ends with {trail[-1].code}"
        assert trail[-1].message, "5: the last event does not say why"
        ends = [event.code for event in trail if event.code in set.union(*LAST_CODES.values())]
        assert len(ends) == (job.status in LAST_CODES), f"5: it ended more than once: {ends}"
        attempts = [event.attempt for event in trail]
        assert attempts == sorted(attempts), f"5: a replaced attempt wrote late: {attempts}"
        assert job.finished_at, "5: it has no end"
        assert job.lease_until is None, "5: somebody still holds it"

    def nothing_else_changed(self) -> None:
        """6: what lies beside the job's folders is as it was."""
        for path, before in self._quiet.items():
            _assert_equal(f"6: {path}", before, whole(path))

    def secrets_are_kept(self, job: Job) -> None:
        """7: nothing that is kept of a job, or said of it, shows a secret."""
        rows = [*Job.objects.filter(pk=job.pk).values(), *job.events.values()]
        self._no_secret((str(row) for row in rows), "the database")
        self._no_secret(redis_texts(), "Redis")
        logs = (log.read_text("utf-8", "replace") for log in self.around.logs if log.exists())
        self._no_secret(logs, "a log")

    def _no_secret(self, texts: Iterable[str], where: str) -> None:
        for text in texts:
            assert not any(secret in text for secret in self.around.secrets), f"7: in {where}"


def _assert_equal(what: str, wanted: Tree, found: Tree) -> None:
    try:
        assert_equal_trees(wanted, found)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def _holds(tree: Tree, path: bytes, entry: Entry) -> bool:
    """Whether a tree has something of that content there."""
    return path in tree and _content(tree[path]) == _content(entry)


def _content(entry: Entry) -> tuple[str, str, bytes]:
    return entry.kind, entry.sha256, entry.link


def _digest(entry: Entry) -> str:
    """What a manifest has of it: of a link, the digest of where it leads."""
    return entry.sha256 or hashlib.sha256(entry.link).hexdigest()


def _trail(job: Job) -> list[JobEvent]:
    return list(job.events.order_by("seq"))


def _manifests(job: Job) -> Iterator[tuple[int, bytes, str, str]]:
    """Attempt, path, digest and state of every entry that is on record as proven."""
    for parcel in job.parcels.exclude(manifest=None).order_by("attempt", "number"):
        for record in manifests.read(bytes(parcel.manifest)):
            yield parcel.attempt, os.fsencode(record["path"]), record["sha256"], parcel.state


def names_below(root: Path) -> set[bytes]:
    """The paths of all entries below a folder."""
    base = os.fsencode(root)
    return {
        os.path.relpath(os.path.join(folder, name), base)
        for folder, folders, files in os.walk(base)
        for name in folders + files
    }


def snapshot_of_final(root: Path) -> Tree:
    """What a target shows under final names: everything but the staging folder at its top."""
    found: Tree = {}
    if not root.is_dir():
        return found
    for path in root.iterdir():
        if path.name.startswith(".ketter-"):
            continue  # It may go while one looks.
        top = os.fsencode(path.name)
        found[top] = entry_of(os.fsencode(path))
        if found[top].kind == "folder":
            found |= {top + b"/" + name: entry for name, entry in snapshot(path).items()}
    return found


def debris(root: Path) -> list[str]:
    """Staging folders, and whatever else bears our name, anywhere below a folder."""
    return [
        os.path.join(folder, name)
        for folder, folders, files in os.walk(root)
        for name in folders + files
        if name.startswith(".ketter")
    ]


def wait_until_gone(left: Callable[[], Left]) -> Left:
    """Wait for what is left to go away by itself; returns what does not."""
    deadline = time.monotonic() + GOING
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def command_line(pid: int) -> str:
    """A process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
    except OSError:
        return ""


def _command_lines(mark: str) -> list[str]:
    return [command_line(pid) for pid in marked(mark)] if mark else []


def redis_texts() -> Iterator[str]:
    """Everything that is in Redis, as text; what rq compressed is opened."""
    redis = django_rq.get_connection()
    for key in redis.scan_iter():
        kind = str(redis.type(key), "ascii")
        yield key.decode("utf-8", "replace")
        if kind == "string":
            yield _opened(redis.get(key) or b"")
        elif kind == "hash":
            yield from map(_opened, redis.hgetall(key).values())
        elif kind == "list":
            yield from map(_opened, redis.lrange(key, 0, -1))
        elif kind == "zset":
            yield from map(_opened, redis.zrange(key, 0, -1))
        elif kind == "set":
            yield from map(_opened, redis.smembers(key))
        elif kind == "stream":
            yield str(redis.xrange(key))


def _opened(value: bytes) -> str:
    with contextlib.suppress(zlib.error):
        value = zlib.decompress(value)
    return value.decode("utf-8", "replace")
