"""What strangers put into the queue: functions, pickles, callbacks, records that are none."""

from __future__ import annotations

import json
import os
import pickle
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rq import Callback, Queue, Repeat, Retry
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from jobs.queueing.notify import QUEUE, TASK
from tests.jobs.helpers import MEGABYTE

Put = Callable[[Queue, Path], object]
SOME_ID = str(uuid.UUID(int=7))


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def call(mark: Path) -> tuple[str, list[str]]:
    """What would leave a file, if it were run."""
    return "os.mkdir", [str(mark)]


def function(queue: Queue, mark: Path) -> None:
    """A function of the standard library."""
    name, args = call(mark)
    queue.enqueue(name, *args)


def instance(queue: Queue, mark: Path) -> None:
    """A method of some object."""
    put_record(queue, json.dumps(["mkdir", "os", [str(mark)], {}]).encode())


def more_arguments(queue: Queue, mark: Path) -> None:
    """The right task with more than an id."""
    queue.enqueue_call(TASK, args=(SOME_ID, "more"))


def keywords(queue: Queue, mark: Path) -> None:
    """The right task with the id under a name."""
    queue.enqueue_call(TASK, kwargs={"woken_for": SOME_ID})


def no_id(queue: Queue, mark: Path) -> None:
    """The right task with a text that is no id."""
    queue.enqueue_call(TASK, args=("../../etc/passwd",))


def nested(queue: Queue, mark: Path) -> None:
    """The right task with a list in place of an id."""
    queue.enqueue_call(TASK, args=([SOME_ID],))


def other_function_of_ours(queue: Queue, mark: Path) -> None:
    """A function that is Ketter's, but no task."""
    queue.enqueue_call("jobs.tasks.clear_one", kwargs={"worker": "w"})


def on_success(queue: Queue, mark: Path) -> None:
    """A right wake-up that has a program called when it has ended well."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, on_success=mkdir_callback(mark))


def on_failure(queue: Queue, mark: Path) -> None:
    """The same when it failed."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, on_failure=mkdir_callback(mark))


def on_stopped(queue: Queue, mark: Path) -> None:
    """The same when a user stopped it."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, on_stopped=mkdir_callback(mark))


def mkdir_callback(mark: Path) -> Callback:
    """A callback; rq would import its module, which leaves the mark."""
    return Callback(f"tests.jobs.marking_{mark.name}.run")


def retried(queue: Queue, mark: Path) -> None:
    """A right wake-up that rq is to run again and again."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, retry=Retry(max=3))


def repeated(queue: Queue, mark: Path) -> None:
    """The same, by the clock."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, repeat=Repeat(times=3, interval=1))


def limited(queue: Queue, mark: Path) -> None:
    """A right wake-up that rq is to kill after a second."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=1)


def with_meta(queue: Queue, mark: Path) -> None:
    """A right wake-up with data that Ketter does not write."""
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, meta={"some": "thing"})


def webhook(queue: Queue, mark: Path) -> None:
    """A right wake-up after which rq is to call an address."""
    hook = Webhook("http://127.0.0.1:9/x", "finished")
    queue.enqueue_call(TASK, args=(SOME_ID,), timeout=-1, webhooks=[hook])


def pickled(queue: Queue, mark: Path) -> None:
    """A pickle in place of the call."""
    put_record(queue, pickle.dumps(Bomb(str(mark))))


def pickled_meta(queue: Queue, mark: Path) -> None:
    """A right call beside a pickle."""
    call = json.dumps([TASK, None, [SOME_ID], {}]).encode()
    put_record(queue, call, meta=pickle.dumps(Bomb(str(mark))))


def pickled_result(queue: Queue, mark: Path) -> None:
    """A right call, and a result that is a pickle; it is a wake-up, and the result is not read."""
    put_record(queue, b"[]", result=pickle.dumps(Bomb(str(mark))))


def bomb_of_zeros(queue: Queue, mark: Path) -> None:
    """A call that grows when it is unpacked."""
    put_record(queue, zlib.compress(bytes(100 * MEGABYTE)))


def no_date(queue: Queue, mark: Path) -> None:
    """A record with a date that is none, which ended the worker."""
    call = json.dumps([TASK, None, [SOME_ID], {}]).encode()
    put_record(queue, call, created_at=b"yesterday")


def no_call(queue: Queue, mark: Path) -> None:
    """A record without a call."""
    put_record(queue, b"", origin=b"default")


def odd_field(queue: Queue, mark: Path) -> None:
    """A record with a field whose name is no text."""
    queue.connection.hset("rq:job:odd", mapping={b"\xff\xfe": b"1", b"data": b"x"})
    queue.connection.rpush(queue.key, "odd")


def no_hash(queue: Queue, mark: Path) -> None:
    """A record that is no hash."""
    queue.connection.set("rq:job:text", "text")
    queue.connection.rpush(queue.key, "text")


def odd_name(queue: Queue, mark: Path) -> None:
    """An entry that rq does not accept as a name."""
    queue.connection.rpush(queue.key, "a b/../c")


def binary_name(queue: Queue, mark: Path) -> None:
    """An entry that is no text."""
    queue.connection.rpush(queue.key, b"\xff\xfe\x00")


def nothing_there(queue: Queue, mark: Path) -> None:
    """An entry without a record."""
    queue.connection.rpush(queue.key, "gone")


def put_record(queue: Queue, data: bytes, **fields: bytes) -> None:
    """Put a record as a program writes it that knows Redis."""
    name = uuid.uuid4().hex
    record: dict[Any, Any] = {"data": data, "status": b"queued", "timeout": b"-1", **fields}
    if not data:
        del record["data"]
    queue.connection.hset(f"rq:job:{name}", mapping=record)
    queue.connection.rpush(queue.key, name)


STRANGERS: tuple[Put, ...] = (
    *(function, instance, more_arguments, keywords, no_id, nested, other_function_of_ours),
    *(on_success, on_failure, on_stopped, retried, repeated, limited, with_meta, webhook),
    *(pickled, pickled_meta, pickled_result, bomb_of_zeros, no_date, no_call, odd_field),
)
#: What rq itself does not take for a record: nothing to read, and nothing to say what was there.
NAMELESS: tuple[Put, ...] = (no_hash, odd_name, binary_name, nothing_there)


def queue_of(connection: Any) -> Queue:
    """The queue as a stranger sees it, who has rq."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer)
