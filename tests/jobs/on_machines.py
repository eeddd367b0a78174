"""Processes and workers of several machines, on this one."""

from __future__ import annotations

import socket
from typing import Any

import redis
from django.test import override_settings
from rq import Worker
from rq.worker import WorkerStatus

from jobs.queueing.notify import QUEUE

#: The machine of the portals.
HERE = "lab-1"


def on(machine: str) -> Any:
    """Be a process of another machine, with the same folders."""
    return override_settings(KETTER_MACHINE=machine)


def a_worker(redis_: redis.Redis, name: str, hostname: str = "", state: str = "idle") -> Worker:
    """An entry in Redis of a worker that waits for wake-ups."""
    worker = Worker([QUEUE], name=name, connection=redis_)
    worker.hostname = hostname or socket.gethostname()
    worker.register_birth()
    worker.set_state(WorkerStatus(state))
    return worker
