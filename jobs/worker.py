"""Our rq worker: the stock one, that also runs the reaper and says at once when a run dies."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.queue import Queue
from rq.timeouts import HorseMonitorTimeoutException, UnixSignalDeathPenalty
from rq.worker import WorkerStatus

import engine
from engine import bundle, lend, phases
from jobs import observer, reaper, tasks
from jobs.errors import JobError
from jobs.queue import TASK

logger = logging.getLogger(__name__)

#: What tells a worker to end.
ENDING = (signal.SIGTERM, signal.SIGINT)

#: Loaded here, once, and not in each work-horse: that saves a tenth of a small job's time, and
#: a worker that is at work while a new version is installed goes on with the one it has.
PRELOADED = (tasks, phases, lend)


class AlarmForJobs(UnixSignalDeathPenalty):
    """rq's limit of time by an alarm, but on jobs alone: `wait_for_horse` keeps its own."""

    def setup_death_penalty(self) -> None:
        """Set the alarm."""
        if self._exception is not HorseMonitorTimeoutException:
            super().setup_death_penalty()


class KetterWorker(Worker):
    """An rq worker whose parent process looks after lost jobs, idle or busy.

    rq's own retries and scheduler are not used: the row says what comes next.
    All of our work in the parent happens between two waits, with no thread
    and no database connection left open, so that forking stays safe.
    """

    death_penalty_class = AlarmForJobs
    #: Seconds between two tries to reach an absent Redis, at most: rq's minute is long at 2 a.m.
    max_connection_wait_time = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A process id alone comes again, in a container even at once.
        unique = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        kwargs["name"] = kwargs.get("name") or unique
        kwargs["job_monitoring_interval"] = self._interval
        super().__init__(*args, **kwargs)
        for here, of_target in product((True, False), repeat=2):
            bundle.program(here, of_target)
        self._reaped = 0.0
        #: While we wait any signal sends a byte through this pipe: see `_woken_by_signals`.
        self._ear, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        #: The process that clears away beside a work-horse; 0 for none.
        self._clearing = 0

    @property
    def _interval(self) -> int:
        return max(1, int(settings.KETTER_REAPER_SECONDS))

    @property
    def dequeue_timeout(self) -> int:
        """How long to wait for a ring before looking after lost jobs."""
        return min(super().dequeue_timeout, self._interval)

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Asked by rq before each wait of an idle worker."""
        return self._reaper_is_due or super().should_run_maintenance_tasks

    def run_maintenance_tasks(self) -> None:
        """Run the reaper at its pace, and rq's own tidying at rq's."""
        self._reap()
        if super().should_run_maintenance_tasks:
            with self._redis_may_be_away("no tidying"):
                super().run_maintenance_tasks()
        if self._stop_requested:  # rq's own StopRequested can get lost, as where a log is written.
            raise StopRequested

    def execute_job(self, job: RqJob, queue: Queue) -> None:
        """Answer a ring. With Redis away meanwhile, only what it knew of the ring is lost."""
        try:
            super().execute_job(job, queue)
        except RedisError as error:
            logger.warning("Worker %s: Redis is away: %s", self.name, error)
            if not self.horse_pid:
                why = "its process ended while Redis was away"
                self._guarded(partial(reaper.give_back, worker=self.name, reason=why))
        while not self._stop_requested and not self._redis_answers():
            self._reap()
            with self._woken_by_signals():
                self._wait_for_signal(self._interval)

    @contextlib.contextmanager
    def _redis_may_be_away(self, what: str) -> Iterator[None]:
        """Go on without Redis: rq waits for it where it waits for a ring, and ends elsewhere."""
        try:
            yield
        except RedisError as error:
            logger.warning("Worker %s: %s, Redis is away: %s", self.name, what, error)

    def check_for_suspension(self, burst: bool) -> None:
        """Called by rq between two rings: wait for as long as all workers are suspended."""
        with self._redis_may_be_away("does not know whether it is suspended"):
            super().check_for_suspension(burst)

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Say what we do, in Redis if it is there."""
        with self._redis_may_be_away(f"cannot say that it is {state}"):
            super().set_state(state, pipeline)

    def _redis_answers(self) -> bool:
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the work-horse to end, for one interval at most.

        Returns its process id, wait status and usage; None thrice if it is not ours to wait for.
        Raises HorseMonitorTimeoutException when the interval is over: here, and not out of the
        handler of an alarm, as rq does it. That cuts off the handler of SIGTERM where it comes amid
        it, and we would not end. Nor does it end a wait whose SIGTERM came to another thread.
        """
        deadline = time.monotonic() + self._interval
        with self._woken_by_signals():
            while True:
                try:
                    pid, status, usage = os.wait4(self.horse_pid, os.WNOHANG)
                except ChildProcessError:
                    return None, None, None
                if pid:
                    return pid, status, usage
                left = deadline - time.monotonic()
                if left <= 0:
                    raise HorseMonitorTimeoutException
                self._wait_for_signal(left)

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Have `_wait_for_signal` end when a signal comes to any thread, or a child ends."""
        before = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        # Of a signal that nobody handles Python hears nothing.
        of_children = signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, of_children)
            signal.set_wakeup_fd(before)

    def _wait_for_signal(self, seconds: float) -> None:
        """Wait so long, or until a signal; one that has come just before counts, too."""
        if select.select([self._ear], [], [], seconds)[0]:
            os.read(self._ear, 1024)

    def fork_work_horse(self, job: RqJob, queue: Queue) -> None:
        """Fork with the signals to end held back: amid a fork they would reach neither of the two.

        The parent does not know yet whom to pass them on to, and the child forgets them.
        """
        with _held_back():
            super().fork_work_horse(job, queue)
            if self._stop_requested:
                self._tell_horse()

    def maintain_heartbeats(self, job: RqJob, execution: Execution) -> None:
        """Run the reaper also while a work-horse runs; an absent Redis does not stop the horse."""
        with self._redis_may_be_away("no heartbeat"):
            super().maintain_heartbeats(job, execution)
        if self._reaper_is_due:
            self._reap()
            self._clear_beside()

    def handle_work_horse_killed(self, job: RqJob, retpid: int, ret_val: int, rusage: Any) -> None:
        """Give the job back at once when its process died and we did not."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        if job.func_name == TASK:
            why = f"its process ended with wait status {ret_val}"
            self._guarded(partial(reaper.give_back, worker=self.name, reason=why))

    def handle_warm_shutdown_request(self) -> None:
        """Told to end: have the run under way stop where it is and give its job back.

        And remember it: rq only raises it, and what a signal handler raises can get lost where
        exceptions are caught, as in a client that misses its Redis. Then rq may write its line.
        """
        self._stop_requested = True
        self._tell_horse()
        super().handle_warm_shutdown_request()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Told so a second time: end, be the work-horse gone or stuck in the kernel."""
        try:
            super().request_force_stop(signum, frame)
        except HorseMonitorTimeoutException:
            raise SystemExit from None

    def _shutdown(self) -> None:
        """Tell Redis that we end, if it is there."""
        with self._redis_may_be_away("ends"):
            super()._shutdown()

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """Called by rq each time before it waits for a ring: not if we were told to end."""
        if self._stop_requested and self.get_state() == WorkerStatus.IDLE:
            raise StopRequested
        with self._redis_may_be_away("no heartbeat"):
            super().heartbeat(*args, **kwargs)

    def _tell_horse(self) -> None:
        for pid in filter(None, (self.horse_pid, self._clearing)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def setup_work_horse_signals(self) -> None:
        """In the work-horse: SIGTERM asks the run to stop, it does not cut it off."""
        super().setup_work_horse_signals()
        signal.signal(signal.SIGTERM, observer.ask_to_hand_back)
        if self._stop_requested:
            observer.ask_to_hand_back(signal.SIGTERM, None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # They were held back for the fork.

    @property
    def _reaper_is_due(self) -> bool:
        return time.monotonic() - self._reaped >= self._interval

    def _reap(self) -> None:
        self._reaped = time.monotonic()
        self._guarded(reaper.tick)
        # A killed run could not remove what its ssh needed: keys lie there.
        try:
            engine.sweep()
        except OSError as error:  # One that is just ending may still write there: the next look.
            logger.warning("Worker %s: could not sweep its temporary folder: %s", self.name, error)

    def _clear_beside(self) -> None:
        """Have what a cancelled job left cleared away: no worker may be free for hours.

        In a process of its own, one at a time; if it dies, the job's lease runs out as any other's.
        """
        try:
            if self._clearing and os.waitpid(self._clearing, os.WNOHANG) == (0, 0):
                return
            self._clearing = 0
            if self._stop_requested or not self._guarded(reaper.somebody_waits_to_be_cleared):
                return
            with _held_back():
                self._clearing = os.fork()
                if not self._clearing:
                    self._clear()
                if self._stop_requested:
                    self._tell_horse()
        except OSError as error:  # No process more for now: that must not end those that are.
            self._clearing = 0
            logger.warning("Worker %s: could not begin to clear away: %s", self.name, error)

    def _clear(self) -> NoReturn:
        """What the forked process does."""
        try:
            os.setpgrp()
            self.setup_work_horse_signals()
            tasks.clear_one(worker=f"{self.name}.clearing")
        except BaseException:
            logger.exception("Worker %s: a cancelled job could not be cleared away", self.name)
        finally:
            os._exit(0)

    def _guarded(self, look: Callable[[], object]) -> object:
        """Run the reaper's work; what goes wrong is logged, and tried again at the next look."""
        try:
            return look()
        except (DatabaseError, RedisError, JobError):
            logger.warning("Worker %s: the reaper could not work", self.name, exc_info=True)
            return None
        finally:
            connections.close_all()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Let the signals to end wait, here and in what is forked from here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
