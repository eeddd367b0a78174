"""The soak's oracle: what must hold of the trees and the trail once a case has ended."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine.agent.wire import STAGING_PREFIX
from jobs.models import Job
from jobs.states import FINAL, Status
from tests.faults.soak_jobs import Case, Tree, contents
from tests.rig.trees import Entry, snapshot

#: Codes of events that end a job otherwise than by an error.
ENDS = ("DONE", "PARTIAL", "CANCELLED", "STAGING_LEFT")
SHOWN = 5
#: Of a folder that may still be on its way: it gets its mode and its time last.
ANYHOW = ("kind",)


class Violation(NamedTuple):
    """Something that must not be: `kind` is one of soak.KINDS."""

    kind: str
    case: str
    message: str
    trail: str = ""


def judge(case: Case, jobs: list[Job]) -> list[Violation]:
    """Hold what there is now against what there was."""
    found = [(kind, text) for job in jobs for kind, text in _judge_trail(case, job)]
    after, there = snapshot(case.source), snapshot(case.target)
    done = any(job.status == Status.DONE for job in jobs)
    if case.is_archive:
        found += _judge_archive(case, after, there, done)
    else:
        found += _judge_target(case, there, done)
        found += _judge_source(case, after, there, done)
        if not done and not case.there and case.target.exists() and not _any_file(there):
            found.append(("debris", f"the folder {case.target.name} was left, with nothing in it"))
    found += [("debris", f"left: {path!r}") for path in debris(case.source, case.target)]
    trail = "\n".join(trail_of(job) for job in jobs)
    return [Violation(kind, case.name, text, trail) for kind, text in found]


def debris(*roots: Path) -> list[str]:
    """Staging folders and the like below some folders, and beside them under their names."""
    return [
        os.path.join(folder, name)
        for root in roots
        for folder, folders, files in os.walk(root)
        for name in folders + files
        if name.startswith(STAGING_PREFIX)
    ]


def trail_of(job: Job) -> str:
    """A job's order and events, for a person who has to find out."""
    places = [
        f"{portal.name}:{path}"
        for portal, path in (
            (job.source_portal, job.source_path),
            (job.target_portal, job.target_path),
        )
    ]
    chosen = f"{job.strategy} verify={job.verify or 'default'} on_conflict={job.on_conflict}"
    chosen += f" streams={job.streams} limit={job.bandwidth_limit}"
    lines = [
        f"  job {job.pk} {job.status} attempt {job.attempt} {job.error_code}:",
        f"    {job.mode} {' -> '.join(places)} {chosen}",
    ]
    lines += [
        f"    {event.seq:3} {event.at:%H:%M:%S.%f} a{event.attempt} {event.phase or '-'} "
        f"{event.code}: {event.message[:200]}"
        for event in job.events.order_by("seq")
    ]
    return "\n".join(lines)


def _judge_trail(case: Case, job: Job) -> list[tuple[str, str]]:
    """One terminal event, the last one, that says what the status says."""
    events = list(job.events.order_by("seq"))
    codes = [event.code for event in events]
    if job.status not in FINAL:
        return [("lost", f"job {job} never ended: it is {job.status}")]
    found = []
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append(("trail", f"the events of job {job} have gaps"))
    last = {Status.DONE: ("DONE",), Status.PARTIAL: ("PARTIAL",), Status.FAILED: (job.error_code,)}
    if codes[-1] not in last.get(
        Status(job.status), ("CANCELLED", "STAGING_LEFT", "STAGING_CLEARED")
    ):
        found.append(("trail", f"job {job} is {job.status}, but its last event is {codes[-1]}"))
    if sum(code in ENDS for code in codes) != (job.status != Status.FAILED):
        found.append(("trail", f"job {job} has not one terminal event: {codes}"))
    if "STAGING_LEFT" in codes and codes[-1] != "STAGING_CLEARED":
        found.append(("debris", f"job {job} says that it left its staging folder"))
    refused = case.conflict and case.order["on_conflict"] == "fail"
    wanted = (Status.FAILED if refused else Status.DONE, Status.CANCELLED)
    if job.status not in wanted or (refused and job.error_code not in ("TARGET_EXISTS", "")):
        found.append(("unexpected", f"job {job} ended {job.status} ({job.error_code})"))
    return found


def _judge_target(case: Case, there: Tree, done: bool) -> list[tuple[str, str]]:
    """Nothing but what was there and what was sent; after success all of it."""
    refused = case.conflict and case.order["on_conflict"] == "fail"
    expected = case.there if refused else case.expected
    found = []
    for path, entry in there.items():
        if path.rpartition(b"/")[2].startswith(os.fsencode(STAGING_PREFIX)):
            continue  # Named as debris.
        trees = [tree for tree in (expected, case.there) if path in tree]
        if not any(_alike(entry, tree[path], ANYHOW) for tree in trees):
            want = expected.get(path) or case.there.get(path)
            found.append(("corrupt", f"target {path!r} is {entry}, not {want}"))
    must = expected if done else case.there
    found += [("lost", f"target lacks {path!r}") for path in must if path not in there]
    if done:
        found += [
            ("corrupt", f"target {path!r} is {there[path]}, not {entry}")
            for path, entry in expected.items()
            if path in there and not _alike(there[path], entry, _kept(case))
        ]
    return _few(found)


def _judge_source(case: Case, after: Tree, there: Tree, done: bool) -> list[tuple[str, str]]:
    """A copy changes nothing; a move removes what arrived, and only that."""
    found = [
        ("corrupt", f"source has a new {path!r}") for path in after.keys() - case.before.keys()
    ]
    for path, entry in case.before.items():
        if path in after:
            if not _alike(after[path], entry, _kept(case)):
                found.append(("corrupt", f"source {path!r} is {after[path]}, not {entry}"))
            elif done and case.is_move and _must_go(case, path, entry):
                found.append(("unexpected", f"source {path!r} is still there after the move"))
            continue
        place = case.arrives.get(path)
        arrived = place in there and _alike(there[place], entry, ANYHOW) if place else False
        if not case.is_move or not arrived:
            found.append(("lost", f"source {path!r} is gone, and not at the target"))
    return _few(found)


def _must_go(case: Case, path: bytes, entry: Entry) -> bool:
    if entry.kind != "folder":
        return path in case.arrives
    below = (name for name in case.before if name.startswith(path + b"/"))
    return all(name in case.arrives for name in below)


def _judge_archive(case: Case, after: Tree, there: Tree, done: bool) -> list[tuple[str, str]]:
    """The archive is whole where it is; a move's source may only be gone if it is there."""
    names = {os.fsencode(f"{case.source.name}.zip")}
    files = {path for path, entry in there.items() if entry.kind != "folder"}
    found = [("corrupt", f"target has {path!r}") for path in files - names]
    wanted, held = contents(case.before), Counter[str]()
    if files & names:
        held = _archived(case.target / f"{case.source.name}.zip")
        if held != wanted:
            lacks, others = (wanted - held).total(), (held - wanted).total()
            found.append(("corrupt", f"the archive lacks {lacks} files and has {others} others"))
    elif done:
        found.append(("lost", "there is no archive"))
    if lost := wanted - held - contents(after):
        found.append(("lost", f"{lost.total()} files are neither at the source nor in the archive"))
    if done and case.is_move and contents(after):
        found.append(("unexpected", "files are still at the source after the move"))
    return found


def _archived(path: Path) -> Counter[str]:
    found = Counter[str]()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            with archive.open(info) as file:
                found[hashlib.file_digest(file, "sha256").hexdigest()] += 1
    return found


def _kept(case: Case) -> tuple[str, ...]:
    """What a folder must keep; its time changes with what a killed move took out of it."""
    return ("kind", "mode") if case.is_move else ("kind", "mode", "mtime_ns")


def _alike(one: Entry, other: Entry, kept: tuple[str, ...]) -> bool:
    """Equal in everything; of two folders, in what is `kept`."""
    if one.kind == other.kind == "folder":
        return all(getattr(one, what) == getattr(other, what) for what in kept)
    return one == other


def _any_file(tree: Tree) -> bool:
    return any(entry.kind != "folder" for entry in tree.values())


def _few(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(found) <= SHOWN:
        return found
    return [*found[:SHOWN], (found[SHOWN][0], f"and {len(found) - SHOWN} more")]
