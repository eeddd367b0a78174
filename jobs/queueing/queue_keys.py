"""Keys of the queue in Redis that another program has spoiled: mends or passes over, and logs.

Every program that reaches Redis can write there, and most keys of rq have no end. So an entry that
no worker wrote, a key of another type, or a brake without an end would stop the queue, or a page,
for ever.
"""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import ResponseError
from rq import Queue, Worker
from rq.worker import BaseWorker
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

logger = logging.getLogger(__name__)

#: Seconds after which rq's own lock for its maintenance of a queue ends.
MAINTENANCE_SECONDS = 899
_WHO = "Another program can write to this Redis: see REDIS_URL in deploy/env.example."


def known_workers(queue: Queue) -> list[BaseWorker]:
    """Return the workers of a queue that have an entry in Redis.

    rq raises at an entry that it cannot read. This removes the entry from rq's sets, and logs it.
    """
    of_queue = WORKERS_BY_QUEUE_KEY % queue.name
    here = _members(queue, of_queue)
    found = [_worker(queue, of_queue, member) for member in here]
    for member in set(_members(queue, REDIS_WORKER_KEYS)) - set(here):  # For the queue's pages.
        _worker(queue, REDIS_WORKER_KEYS, member)
    return [worker for worker in found if worker]


def _members(queue: Queue, key: str) -> list[bytes]:
    connection: Any = queue.connection
    try:
        return sorted(connection.smembers(key))
    except ResponseError as error:
        if not _of_wrong_type(error):
            raise
        return []  # `keys_mend` removes it.


def _worker(queue: Queue, key: str, member: bytes) -> BaseWorker | None:
    """Return the worker of an entry; None if it has gone, or if no worker can have written it."""
    try:
        name = member.decode()
        if not name.isprintable():
            raise ValueError("its name cannot be shown")
        return Worker.find_by_key(name, connection=queue.connection)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        why: Exception = error
    except ResponseError as error:
        if not _of_wrong_type(error):
            raise
        why = error
    connection: Any = queue.connection
    for workers in {key, REDIS_WORKER_KEYS}:
        connection.srem(workers, member)
    logger.warning(
        "Removed the entry %.100r from %s, which is no worker's: %s. %s", member, key, why, _WHO
    )
    return None


def keys_mend(queue: Queue) -> None:
    """Remove the keys of a queue that have another type than rq gives them; bound rq's lock.

    As long as such a key stands, Redis refuses each command for it: no wake-up comes through.
    """
    connection: Any = queue.connection
    types = _types(queue)
    with connection.pipeline(transaction=False) as pipeline:
        for key in types:
            pipeline.type(key)
        found = dict(zip(types, pipeline.execute(), strict=True))
    for key, kind in found.items():
        if kind.decode() not in ("none", types[key]):
            connection.delete(key)
            logger.warning(
                "Removed the key %s, a %s where the queue has a %s. %s",
                *(key, kind.decode(), types[key], _WHO),
            )
    bound(queue, queue.registry_cleaning_key, MAINTENANCE_SECONDS)


def _types(queue: Queue) -> dict[str, str]:
    """The keys of a queue, each with Redis' name of its type."""
    registries = (
        queue.started_job_registry,
        queue.finished_job_registry,
        queue.failed_job_registry,
        queue.deferred_job_registry,
        queue.scheduled_job_registry,
        queue.canceled_job_registry,
    )
    return {
        queue.key: "list",
        queue.intermediate_queue_key: "list",
        Queue.redis_queues_keys: "set",
        REDIS_WORKER_KEYS: "set",
        WORKERS_BY_QUEUE_KEY % queue.name: "set",
        **{registry.key: "zset" for registry in registries},
    }


def brake_set(queue: Queue, key: str, seconds: int) -> bool:
    """Set a key that ends after some seconds; False if it is set already.

    What it holds is never held for longer, whoever has set it.
    """
    connection: Any = queue.connection
    if connection.set(key, 1, nx=True, ex=seconds):
        return True
    bound(queue, key, seconds)
    return False


#: How Redis says that a key's value cannot be counted up.
_NO_COUNT = ("not an integer", "would overflow")


def brake_count(queue: Queue, key: str, seconds: int) -> int:
    """Count one more in a key that ends some seconds after the first; return the count."""
    connection: Any = queue.connection
    for again in (True, False):
        with connection.pipeline(transaction=True) as pipeline:
            pipeline.set(key, 0, nx=True, ex=seconds)  # A later step does not prolong it.
            pipeline.incr(key)
            try:
                count = int(pipeline.execute()[1])
            except ResponseError as error:
                spoiled = _of_wrong_type(error) or any(why in str(error) for why in _NO_COUNT)
                if not (again and spoiled):
                    raise
                connection.delete(key)
                logger.warning("Removed the key %s, which is no count. %s", key, _WHO)
                continue
        bound(queue, key, seconds)
        return count
    raise AssertionError("it has returned or raised")


def bound(queue: Queue, key: str, seconds: int) -> None:
    """Let a key end after some seconds at the latest; it may have no end, or one far away."""
    connection: Any = queue.connection
    left = connection.ttl(key)
    if left == -1 or left > seconds:
        connection.expire(key, seconds)
        logger.warning("The key %s now ends in %d s: it lasted longer. %s", key, seconds, _WHO)


def _of_wrong_type(error: ResponseError) -> bool:
    return "WRONGTYPE" in str(error)
