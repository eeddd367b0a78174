"""Ketter's rq worker: runs each wake-up in a work-horse (a child process) and watches that.

Each class below it adds one thing to rq's worker: `rq_worker.outage` life without Redis,
`presence` its entry in Redis, `listening` wake-ups and commands, `reaping` the reaper. Each
override says what rq does and what it changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.utils.translation import gettext as _
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.queue import Queue
from rq.timeouts import HorseMonitorTimeoutException, UnixSignalDeathPenalty

from engine import phases
from engine.connect import bundle
from engine.proof import manifest, manifest_lines
from engine.share import helper, lending
from jobs import tasks
from jobs.queueing import reaper
from jobs.queueing.clearing import clearing_waits
from jobs.rq_worker.reaping import ReapingWorker
from jobs.running import shutdown

logger = logging.getLogger(__name__)

#: The signals that ask a worker to shut down.
ENDING = (signal.SIGTERM, signal.SIGINT)

#: The parent process loads these once, and not each work-horse: that saves a tenth of a small
#: job's time. And a worker that runs while a new version is installed keeps its own version: no
#: work-horse imports a module of Ketter first (`tests/jobs/test_preloaded.py`).
PRELOADED = (tasks, phases, lending, helper, manifest, manifest_lines)


class AlarmForJobs(UnixSignalDeathPenalty):
    """rq's time limit by an alarm, for jobs alone: `wait_for_horse` has a limit of its own."""

    def setup_death_penalty(self) -> None:
        """Set the alarm. rq also sets one while it waits for the work-horse; this does not."""
        if self._exception is not HorseMonitorTimeoutException:
            super().setup_death_penalty()


class KetterWorker(ReapingWorker):
    """An rq worker that gives a job back at once when its work-horse dies or the worker ends.

    Ketter does not use rq's retries and scheduler: the job's row says what comes next.
    """

    death_penalty_class = AlarmForJobs

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A process id alone comes again; in a container even at once.
        unique = f"{settings.KETTER_MACHINE}.{os.getpid()}.{secrets.token_hex(3)}"
        kwargs["name"] = kwargs.get("name") or unique
        kwargs["job_monitoring_interval"] = self._interval
        super().__init__(*args, **kwargs)
        for here, of_target in product((True, False), repeat=2):
            bundle.program(here, of_target)
        #: The wait status of a work-horse whose job is not given back yet; 0 if there is none.
        self._ended_with = 0
        #: The process that cleans up after a cancelled job beside a work-horse; 0 if none runs.
        self._cleaner = 0

    # --- The work-horse ------------------------------------------------------------

    def execute_job(self, job: RqJob, queue: Queue) -> None:
        """Run a wake-up in a work-horse, and wait until that ends.

        rq raises if Redis is away meanwhile. This goes on: only rq's record of the wake-up is
        lost. It then gives back the job of a dead work-horse, and waits until Redis answers.
        """
        self._stopped_by, self._ended_with = "", 0
        with self._redis_may_be_away("forgets the wake-up"):
            super().execute_job(job, queue)
        # rq does not report a dead work-horse if Redis was away, or its record has been removed.
        self._give_back()
        while not self._stop_requested and not self._redis_answers():
            self._reap()
            self._pause(self._interval)

    def fork_work_horse(self, job: RqJob, queue: Queue) -> None:
        """Fork the work-horse.

        During rq's fork a signal to shut down gets lost: the parent does not know the new
        process yet, and the child forgets the signal. This blocks these signals meanwhile, and
        passes on one that came before.
        """
        with _ending_blocked():
            super().fork_work_horse(job, queue)
            if self._stop_requested:
                self._signal_children()

    def setup_work_horse_signals(self) -> None:
        """Set the signal handlers of the work-horse.

        rq lets SIGTERM kill it. Here SIGTERM asks the run to stop and give its job back.
        """
        super().setup_work_horse_signals()
        signal.signal(signal.SIGTERM, shutdown.request_shutdown)
        if self._stop_requested:
            shutdown.request_shutdown(signal.SIGTERM, None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # The fork had blocked them.

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the work-horse to end, for one interval of the reaper at most.

        Returns its process id, wait status and usage; three times None if it is no child of this
        process. Raises HorseMonitorTimeoutException when the interval is over.

        rq raises that from SIGALRM, which can interrupt our SIGTERM handler and lose the
        shutdown. A SIGTERM delivered to another thread does not end rq's wait either.
        """
        deadline = time.monotonic() + self._interval
        with self._woken_by_signals():
            while True:
                try:
                    pid, status, usage = os.wait4(self.horse_pid, os.WNOHANG)
                except ChildProcessError:
                    return None, None, None
                if pid:
                    self._ended_with = status
                    return pid, status, usage
                left = deadline - time.monotonic()
                if left <= 0:
                    raise HorseMonitorTimeoutException
                self._wait_for_signal(left)

    def maintain_heartbeats(self, job: RqJob, execution: Execution) -> None:
        """Renew the entries of the worker and the wake-up in Redis while the work-horse runs.

        rq raises if Redis is away, and its worker ends with the work-horse. This goes on, and
        also runs the reaper and the cleaning up after cancelled jobs.
        """
        with self._redis_may_be_away("no heartbeat"):
            super().maintain_heartbeats(job, execution)
            self._redis_works()
        if self._reaper_is_due:
            self._reap()
            self._start_cleaner()

    def handle_work_horse_killed(self, job: RqJob, retpid: int, ret_val: int, rusage: Any) -> None:
        """Handle the death of a work-horse.

        rq logs it. This also gives its job back at once, before the lease expires.
        """
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        self._give_back()

    def _handle_stopped_job(self, job: RqJob, queue: Queue, execution: Execution) -> None:
        """Handle a run that a user stopped in the queue's pages.

        rq marks its entry as failed. This also gives the job back at once.
        """
        self._give_back()
        super()._handle_stopped_job(job, queue, execution)

    def _give_back(self) -> None:
        """Give back the job and the parcel of a work-horse that died; once for each."""
        status, self._ended_with = self._ended_with, 0
        if not status:
            return
        why = _("its process ended with wait status %d") % status
        if self._stopped_by:
            why = _("its process was stopped by the command %s of the queue's pages")
            why %= self._stopped_by
        self._guarded(partial(reaper.give_back, worker=self.name, reason=why))

    # --- Shutting down ---------------------------------------------------------------

    def handle_warm_shutdown_request(self) -> None:
        """Handle the first signal to shut down.

        rq logs it and waits for the work-horse. This asks the work-horse to stop and give its
        job back. It also notes the request: rq only raises an exception for it, which can get
        lost where exceptions are caught, as in a client that misses its Redis.
        """
        self._stop_requested = True
        self._signal_children()
        super().handle_warm_shutdown_request()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Handle a second signal: kill the work-horse and end.

        rq waits for the killed work-horse. That is stuck in the kernel if the wait exceeds its
        limit: this ends without it.
        """
        try:
            super().request_force_stop(signum, frame)
        except HorseMonitorTimeoutException:
            raise SystemExit from None

    def _signal_children(self) -> None:
        """Ask the work-horse and the cleaner to stop."""
        for pid in filter(None, (self.horse_pid, self._cleaner)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    # --- Cleaning up after cancelled jobs ----------------------------------------------

    def run_maintenance_tasks(self) -> None:
        """Run the reaper, rq's maintenance, and the clean-up that a dead worker has left."""
        super().run_maintenance_tasks()
        self._start_cleaner(clearing_waits)

    def _start_cleaner(self, waits: Callable[[], bool] = reaper.cancelled_job_waits) -> None:
        """Fork a process that removes the data of a cancelled job, if one waits for that.

        All workers may be busy for hours. One such process runs at a time; if it dies, the lease
        of its job, or of its clean-up, expires as any other does. Idle workers have wake-ups for
        jobs that wait.
        """
        try:
            if self._cleaner and os.waitpid(self._cleaner, os.WNOHANG) == (0, 0):
                return
            self._cleaner = 0
            if self._stop_requested or not self._guarded(waits):
                return
            with _ending_blocked():
                self._cleaner = os.fork()
                if not self._cleaner:
                    self._run_cleaner()
                if self._stop_requested:
                    self._signal_children()
        except OSError as error:  # The machine has no free process: the work-horse must go on.
            self._cleaner = 0
            logger.warning("Worker %s: could not start its cleaner: %s", self.name, error)

    def _run_cleaner(self) -> NoReturn:
        """Clean up after one cancelled job; this is all that the forked process does."""
        try:
            os.setpgrp()
            self.setup_work_horse_signals()
            tasks.clear_one(worker=f"{self.name}.clearing")
        except BaseException:
            logger.exception("Worker %s: could not clean up after a cancelled job", self.name)
        finally:
            os._exit(0)


@contextlib.contextmanager
def _ending_blocked() -> Iterator[None]:
    """Block the signals to shut down, in this process and in one that it forks meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
