"""The proof: real jobs through the queue and a worker, and damage that Ketter must catch."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
from dku.arena import Arena, ArenaBusy, NoRoom, arena, home
from dku.checks.workers import START_WORKER, alive
from dku.findings import Finding, Verdict, first_line
from dku.trees import Tree, read_tree, write_large, write_many, write_small
from engine.observer import SilentObserver
from engine.types import Endpoint, Mode, OnConflict, Request
from jobs.models import Job
from jobs.services import job_create
from jobs.states import FINAL, Status

#: States in which DKU waits for a smoke job no longer: between two folders of this machine, a
#: later retry does not help.
SETTLED = FINAL | {Status.RETRY_WAIT, Status.NEEDS_ATTENTION}
POLL_SECONDS = 0.1
MEGABYTE = 1_000_000
SHOWN = 10
DRILL_SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    """One smoke transfer: what is sent, and how."""

    name: str
    write: Callable[[Path], None]
    mode: Mode


CASES = (
    # Only a move deletes, so the smallest tree proves it.
    Case("small folder", write_small, Mode.MOVE),
    Case("many files", write_many, Mode.COPY),
    Case("large file", write_large, Mode.COPY),
)


def transfer(case: Case, timeout: float) -> Finding:
    """Launch one real job; check that it is DONE within `timeout` seconds, with equal trees."""
    if not alive():
        return Finding(
            Verdict.FAIL, "not run", "No worker is alive, so no job was launched.", START_WORKER
        )
    try:
        with arena() as stage:
            return _transfer(stage, case, timeout)
    except ArenaBusy as error:
        return Finding(Verdict.WARN, "not run", str(error), "Run DKU again when it has ended.")
    except NoRoom as error:
        return Finding(Verdict.FAIL, "not run", str(error), "Make room below VAR_DIR.")


def _transfer(stage: Arena, case: Case, timeout: float) -> Finding:
    folder = case.name.replace(" ", "-")
    source = stage.source_root / folder
    source.mkdir()
    case.write(source)
    sent = read_tree(source)
    job = job_create(
        by=stage.user,
        source_portal=stage.source,
        source_path=folder,
        target_portal=stage.target,
        target_path=folder,
        mode=case.mode.value,
    )
    _wait(job, timeout)
    if job.status not in SETTLED:
        return _late(job, timeout)
    if job.status != Status.DONE:
        return _fault(job, f"The job is {job.status}: {job.error_code}: {job.error_message}")
    return _compare(stage, case, job, sent)


def _wait(job: Job, timeout: float) -> None:
    """Wait until the job has ended, is stuck, or the time is up."""
    give_up = time.monotonic() + timeout
    while job.status not in SETTLED and time.monotonic() < give_up:
        time.sleep(POLL_SECONDS)
        job.refresh_from_db()


def _fault(job: Job, sentence: str, details: tuple[str, ...] = ()) -> Finding:
    return Finding(
        Verdict.FAIL,
        f"job {job} {job.status}",
        sentence,
        f"Read the events of job {job.pk}. Run DKU on the machine of the workers and as their "
        "user: both must see the same VAR_DIR.",
        details,
        {"job": str(job.pk), "status": job.status, "error": job.error_code},
    )


def _late(job: Job, timeout: float) -> Finding:
    """Judge a job that has not ended: a warning only, if all workers have other work."""
    busy = all(worker.get_state() == "busy" for worker in alive())
    if job.status == Status.QUEUED and busy:
        return Finding(
            Verdict.WARN,
            f"job {job} {job.status}",
            f"Nothing is proven: every worker had other work for {timeout:.0f} s.",
            "Run DKU again later, give it a longer --timeout, or start another worker.",
            measured={"job": str(job.pk), "status": job.status},
        )
    return _fault(job, f"The job was still {job.status} after {timeout:.0f} s and was cancelled.")


def _compare(stage: Arena, case: Case, job: Job, sent: Tree) -> Finding:
    """Judge a job in the state DONE by the files themselves."""
    folder = case.name.replace(" ", "-")
    wrong = sent.differences(read_tree(stage.target_root / folder))
    if wrong:
        return _fault(job, f"The job is DONE, but {len(wrong)} paths differ.", tuple(wrong[:SHOWN]))
    others = [p.name for p in stage.target_root.iterdir() if p.name != folder]
    if others:
        sentence = f"The job left {len(others)} entries beside its folder at the target."
        return _fault(job, sentence, tuple(sorted(others)[:SHOWN]))
    left = read_tree(stage.source_root / folder)
    if left.differences(Tree({}, 0, 0) if case.mode is Mode.MOVE else sent):
        expected = "empty" if case.mode is Mode.MOVE else "as it was"
        return _fault(job, f"After the {case.mode} the source should be {expected}, and is not.")
    return _passed(case, job, sent)


def _passed(case: Case, job: Job, sent: Tree) -> Finding:
    measured = _measured(job, sent)
    return Finding(
        Verdict.PASS,
        f"{sent.files} files, {sent.bytes / MEGABYTE:.1f} MB in {measured['seconds']} s: "
        f"{measured['files_per_second']} files/s, {measured['mb_per_second']} MB/s",
        f"A worker ran the {case.mode} and the trees are equal by SHA-256.",
        measured=measured,
    )


def _measured(job: Job, sent: Tree) -> dict[str, Any]:
    # A job that is DONE has all three times.
    assert job.queued_at
    assert job.started_at
    assert job.finished_at
    seconds = (job.finished_at - job.started_at).total_seconds() or 0.001
    return {
        "job": str(job.pk),
        "mode": job.mode,
        "files": sent.files,
        "bytes": sent.bytes,
        "seconds": round(seconds, 3),
        "waited_seconds": round((job.started_at - job.queued_at).total_seconds(), 3),
        "files_per_second": round(sent.files / seconds, 1),
        "mb_per_second": round(sent.bytes / MEGABYTE / seconds, 1),
        "parcel_kinds": sorted(set(job.parcels.values_list("kind", flat=True))),
        "worker": job.worker,
    }


class _Deadline(SilentObserver):
    """Ends a drill that takes longer than DRILL_SECONDS."""

    def __init__(self) -> None:
        self._give_up = time.monotonic() + DRILL_SECONDS

    def checkpoint(self) -> None:
        """Raises Cancelled if the drill's time is up."""
        if time.monotonic() > self._give_up:
            raise engine.Cancelled(f"The drill was still not done after {DRILL_SECONDS:.0f} s.")


def corruption() -> Finding:
    """Damage one byte on its way; check that the engine catches it and leaves the target alone."""
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="drill-", dir=home()) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        target.mkdir()
        write_small(source)
        # An older version at the target: it must still be there afterwards.
        (target / "camera.raw").write_bytes(b"the older version")
        before = read_tree(target)
        started = time.perf_counter()
        caught = _damaged_run(source, target)
        seconds = round(time.perf_counter() - started, 3)
        touched = before.differences(read_tree(target))
    if isinstance(caught, engine.VerifyFailed) and not touched:
        return Finding(
            Verdict.PASS,
            f"caught in {seconds} s",
            "One byte was damaged on purpose: it was caught, and the target was not touched.",
            measured={"code": caught.code, "seconds": seconds},
        )
    if caught is None:
        sentence = "The engine delivered a damaged byte and did not notice."
    elif isinstance(caught, engine.VerifyFailed):
        sentence = "The damage was caught, but the target is not as it was."
    else:
        sentence = f"The drill could not be run: {caught.code}: {first_line(caught)}"
    return Finding(
        Verdict.FAIL,
        "not caught" if caught is None else caught.code,
        sentence,
        "Do not trust this installation with a move; report this with the version.",
        tuple(touched[:SHOWN]),
    )


def _damaged_run(source: Path, target: Path) -> engine.EngineError | None:
    """Run a transfer that damages a byte; return its error, or None if it ends well."""
    request = Request(
        source=Endpoint(str(source)),
        target=Endpoint(str(target)),
        transfer_id=f"dku-drill-{uuid.uuid4().hex[:12]}",
        on_conflict=OnConflict.OVERWRITE,
        inject_fault="flip-byte",
    )
    try:
        engine.run(request, _Deadline())
    except engine.EngineError as error:
        return error
    return None
