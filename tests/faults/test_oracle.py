"""The oracle of the faults can fail: whatever must not be is done by hand after a good job."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import django_rq
import pytest
from django.db.models import F, QuerySet

from jobs.events import Note, append
from jobs.models import Job, JobEvent, JobParcel
from jobs.states import Status
from tests.faults import oracle as oracles
from tests.faults.here import Here
from tests.faults.oracle import Oracle
from tests.faults.spoiling import CLIP
from tests.rig.trees import MTIME, build_small, entry_of, spoil

pytestmark = pytest.mark.django_db

SECRET = "correct horse battery staple"


@dataclass
class Scene:
    """A good job, whose oracle has nothing to say yet."""

    oracle: Oracle
    job: Job
    temp: Path
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def source(self) -> Path:
        """Where it took its tree from."""
        return self.oracle.source

    @property
    def target(self) -> Path:
        """Where it brought it to."""
        return self.oracle.target

    @property
    def row(self) -> QuerySet[Job]:
        """The job's row, to be written past all rules."""
        return Job.objects.filter(pk=self.job.pk)

    def last(self, **news: object) -> None:
        """Change the last event."""
        last = self.job.events.order_by("seq").last()
        JobEvent.objects.filter(pk=last.pk).update(**news)

    def leave_running(self, *words: str, marked: bool = True) -> int:
        """Start a process that bears the job's mark."""
        name, _, value = self.oracle.around.mark.partition("=")
        env = {**os.environ, name: value if marked else ""}
        command = [sys.executable, "-c", "input()", *words]
        self.processes.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE))
        return self.processes[-1].pid


@pytest.fixture
def good(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Scene]]:
    """Run a job that ends well."""
    monkeypatch.setattr(oracles, "GOING", 0.1)
    temp, log = tmp_path / "temp", tmp_path / "log"
    temp.mkdir()
    log.write_text("all is well")
    here.surroundings = replace(here.surroundings, temp=temp, secrets=[SECRET], logs=[log])
    build_small(here.source, 12)
    (here.source / CLIP).write_bytes(b"frames")
    (here.source / "link").symlink_to("reel_00")
    (here.source / "empty").mkdir()
    scenes: list[Scene] = []

    def run(mode: str) -> Scene:
        job = here.run(mode=mode)
        scenes.append(Scene(here.oracles[job], job, temp, log))
        return scenes[-1]

    yield run
    for scene in scenes:
        for process in scene.processes:
            process.communicate(b"\n")


Deed = Callable[[Scene], object]
DEEDS: list[tuple[str, str, Status, Deed]] = []


def seen_as(words: str, mode: str = "copy", status: Status = Status.DONE) -> Callable[[Deed], Deed]:
    """What the oracle has to say to a deed: the number of the invariant, and how it is broken."""

    def register(deed: Deed) -> Deed:
        DEEDS.append((words, mode, status, deed))
        return deed

    return register


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_the_oracle_accepts_a_good_job_and_only_in_its_true_status(
    good: Callable[[str], Scene], mode: str
) -> None:
    scene = good(mode)
    scene.oracle.judge(scene.job)
    with pytest.raises(AssertionError, match=r"^done: "):
        scene.oracle.judge(scene.job, status=Status.FAILED)


@seen_as("1: .* neither at the source nor at the target")
def lose_a_file(scene: Scene) -> None:
    (scene.source / CLIP).unlink()
    (scene.target / CLIP).unlink()


@seen_as("1: .* neither at the source nor at the target", "move")
def keep_only_what_was_there(scene: Scene) -> None:
    spoil(scene.target / CLIP)
    scene.oracle.there[CLIP.encode()] = entry_of(os.fsencode(scene.target / CLIP))


@seen_as("1: the source of a copy: .*sha256")
def spoil_the_source_of_a_copy(scene: Scene) -> None:
    spoil(scene.source / CLIP)


@seen_as("1: removed without proof: .*link", "move")
def remove_without_a_manifest(scene: Scene) -> None:
    scene.job.parcels.update(manifest=None)


@seen_as("1: removed without proof: .*frame_000000", "move")
def remove_with_another_digest(scene: Scene) -> None:
    for parcel in scene.job.parcels.exclude(manifest=None):
        text = zlib.decompress(parcel.manifest).decode()
        text = text.replace(scene.oracle.before[CLIP.encode()].sha256, "0" * 64)
        parcel.manifest = zlib.compress(text.encode())
        parcel.save()


@seen_as("1: removed unseen", "move")
def remove_what_was_there_without_counting_it(scene: Scene) -> None:
    scene.oracle.there |= scene.oracle.before
    scene.job.parcels.update(manifest=None)


@seen_as("2: .* was never at the source")
def add_a_file(scene: Scene) -> None:
    (scene.target / "foreign").touch()


@seen_as("2: .* is not as it was sent")
def alter_a_file(scene: Scene) -> None:
    spoil(scene.target / CLIP)


@seen_as("2: .* is not as it was sent")
def cut_a_file_off(scene: Scene) -> None:
    os.truncate(scene.target / CLIP, 1)


@seen_as("2: .* is not as it was sent")
def bend_a_link(scene: Scene) -> None:
    (scene.target / "link").unlink()
    (scene.target / "link").symlink_to("empty")


@seen_as("3: a move left .*more", "move")
def leave_something_at_the_source(scene: Scene) -> None:
    (scene.source / "more").touch()


@seen_as("3: the target: .*'reel_00': mode")
def change_a_folders_mode(scene: Scene) -> None:
    (scene.target / "reel_00").chmod(0o700)


@seen_as("3: the target: .*'reel_00': mtime_ns")
def change_a_folders_time(scene: Scene) -> None:
    os.utime(scene.target / "reel_00", ns=(MTIME, MTIME))


@seen_as("3: the target: .*'.': mtime_ns")
def change_the_time_of_the_target(scene: Scene) -> None:
    os.utime(scene.target, ns=(MTIME, MTIME))


@seen_as("3: the target: .*frame_000000.dpx': mode")
def change_a_files_mode(scene: Scene) -> None:
    (scene.target / CLIP).chmod(0o600)


@seen_as("3: the target: .*'empty': only in the first")
def lose_an_empty_folder(scene: Scene) -> None:
    times = scene.target.stat()
    (scene.target / "empty").rmdir()
    os.utime(scene.target, ns=(times.st_atime_ns, times.st_mtime_ns))


@seen_as("3: .* are gone from the target", status=Status.CANCELLED)
def lose_what_was_there(scene: Scene) -> None:
    scene.row.update(status=Status.CANCELLED)
    scene.oracle.there[b"theirs"] = scene.oracle.before[b"link"]


@seen_as("3: left behind: .*ketter-0123.part")
def leave_a_staging_folder(scene: Scene) -> None:
    (scene.target.parent.parent / ".ketter-0123.part").mkdir()


@seen_as("3: still running")
def leave_a_process(scene: Scene) -> None:
    scene.leave_running()


@seen_as("3: still running")
def leave_a_session(scene: Scene) -> None:
    pid = scene.leave_running(marked=False)
    scene.oracle.around = replace(scene.oracle.around, sessions=lambda: {pid})


@seen_as("3: left in the temporary folder: .*ketter-ssh-0123")
def leave_a_temporary_folder(scene: Scene) -> None:
    (scene.temp / "ketter-ssh-0123").mkdir()


@seen_as("4: .* was published twice")
def publish_twice(scene: Scene) -> None:
    for parcel in scene.job.parcels.all():
        parcel.pk, parcel.attempt = None, 2
        JobParcel.objects.bulk_create([parcel])


@seen_as(r"4: attempts that began: \[1\]")
def begin_unseen(scene: Scene) -> None:
    scene.row.update(attempt=2)


@seen_as("5: seq has gaps")
def leave_an_event_out(scene: Scene) -> None:
    scene.last(seq=F("seq") + 1)


@seen_as("5: the trail ends with RETRIED")
def go_on_after_the_end(scene: Scene) -> None:
    append(scene.job, Note("RETRIED", "Its time has come."))


@seen_as("5: the last event does not say why")
def end_without_a_word(scene: Scene) -> None:
    scene.last(message="")


@seen_as("5: it ended more than once")
def end_twice(scene: Scene) -> None:
    append(scene.job, Note("DONE", "It is done."))


@seen_as("5: a replaced attempt wrote late")
def write_late(scene: Scene) -> None:
    scene.job.events.filter(code="CREATED").update(attempt=2)


@seen_as("5: it has no end")
def never_finish(scene: Scene) -> None:
    scene.row.update(finished_at=None)


@seen_as("5: somebody still holds it")
def hold_it(scene: Scene) -> None:
    scene.row.update(lease_until=F("finished_at"))


@seen_as("6: .*canary: .*'file': sha256")
def change_what_lies_outside(scene: Scene) -> None:
    spoil(scene.target.parent.parent.parent / "canary/file")


@seen_as("6: .*bystander: .*'.': mode")
def change_what_lies_beside(scene: Scene) -> None:
    (scene.target.parent.parent / "bystander").chmod(0o700)


@seen_as("7: in the database")
def tell_a_secret_in_an_event(scene: Scene) -> None:
    scene.last(data={"why": [f"the password is {SECRET}"]})


@seen_as("7: in the database")
def tell_a_secret_in_the_row(scene: Scene) -> None:
    scene.row.update(error_message=SECRET)


@seen_as("7: in Redis")
def tell_redis_a_secret(scene: Scene) -> None:
    django_rq.get_connection().hset("rq:job:1", "data", zlib.compress(SECRET.encode()))


@seen_as("7: in a log")
def log_a_secret(scene: Scene) -> None:
    scene.log.write_text(f"all is {SECRET}")


@seen_as("7: in a process list")
def tell_everybody_a_secret(scene: Scene) -> None:
    scene.leave_running(f"--password={SECRET}")


@pytest.mark.parametrize(
    ("words", "mode", "status", "deed"), DEEDS, ids=[deed.__name__ for *_, deed in DEEDS]
)
def test_the_oracle_finds_each_way_to_break_an_invariant(
    good: Callable[[str], Scene], words: str, mode: str, status: Status, deed: Deed
) -> None:
    scene = good(mode)
    deed(scene)
    with pytest.raises(AssertionError, match=f"(?s)^{words}"):
        scene.oracle.judge(scene.job, status=status)
