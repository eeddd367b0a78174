"""Reads the records of the queue and trusts none: every program that reaches Redis can write there.

rq imports and calls all that a record names: its function, its callbacks, the classes inside a
pickle. A `WakeUp` has none of that. It names one task of a fixed list and the id of one row. A
worker refuses any other record: it removes the record and never runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from rq import serializers
from rq.exceptions import InvalidJobOperation
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from jobs.queueing.notify import FAILURE_TTL, NO_LIMIT, RESULT_TTL, TASK

#: The functions that a wake-up may name. Each takes the id of one row and nothing else.
TASKS = (TASK,)
#: The greatest size of a call in bytes; the call of a task has about a hundred.
LONGEST_CALL = 1000
#: The form of an entry's name in the queue, for Ketter and for rq.
ENTRY = re.compile(rb"[A-Za-z0-9_-]{1,200}")

#: The fields of a record that a worker reads.
_READ = frozenset(
    (
        *("data", "status", "created_at", "enqueued_at", "started_at", "ended_at"),
        *("last_heartbeat", "worker_name", "origin"),
    )
)
#: The other fields of a wake-up: the same in all of them, or of no use to a worker.
_PASSED_OVER = frozenset(
    ("description", "result_ttl", "failure_ttl", "timeout", "exc_info", "result")
)
_KNOWN = _READ | _PASSED_OVER


class WakeUp(RqJob):
    """An rq job that can do one thing: run a function of `TASKS` with the id of one row."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002  (rq's word)
        connection: Any = None,
        serializer: Any = None,
    ) -> None:
        super().__init__(id, connection, JSONSerializer)
        #: Why a worker must not run this record; empty for a wake-up from Ketter.
        self.refusal = ""

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Read a record; set `refusal` if it is unreadable or has more than a wake-up has.

        rq takes over every field that it knows. This passes on the fields of `_READ` alone.
        """
        record = {bytes(key).decode("ascii", "replace"): raw_data[key] for key in raw_data}
        self.refusal = _wrong_with(record)
        if not self.refusal:
            try:
                super().restore({name: record[name] for name in _READ if name in record})
                self.refusal = _wrong_with_call(self.serializer.loads(self.data))
                if not self.refusal and int(record.get("timeout", NO_LIMIT)) != NO_LIMIT:
                    self.refusal = "it has a time limit"
            except Exception as error:  # noqa: BLE001  (no worker runs it, whatever it is)
                self.refusal = f"its record cannot be read ({type(error).__name__})"
        if self.refusal:
            self.data = self.serializer.dumps(["", None, [], {}])
        self.description = f"not run: {self.refusal}" if self.refusal else self.get_call_string()
        self.timeout, self.result_ttl, self.failure_ttl = NO_LIMIT, RESULT_TTL, FAILURE_TTL

    @property
    def func(self) -> Callable[..., Any]:
        """The task that the wake-up names. Raises InvalidJobOperation if it names something else.

        rq imports any function that a record names.
        """
        if self.refusal or self.func_name not in TASKS:
            words = {"entry": self.id, "reason": self.refusal}
            raise InvalidJobOperation(_("Entry %(entry)s is not run: %(reason)s") % words)
        task: Callable[..., Any] = import_attribute(self.func_name)
        return task


def refuse_pickles() -> None:
    """Make JSON the serializer that rq uses by default, in this process.

    rq's own default is pickle, which runs code while it reads; some pages of django-rq use it.
    """
    serializers.PickleSerializer = JSONSerializer  # type: ignore[assignment]


def _wrong_with(record: Mapping[str, bytes]) -> str:
    """Return why a record is no wake-up, without a look at its call; empty if it is one."""
    more = sorted(name for name, value in record.items() if value and name not in _KNOWN)
    if more:
        # For example a callback, retry, repetition, dependent job or webhook: rq would act on it.
        return f"it has {', '.join(more)[:200].encode('unicode_escape').decode()}"
    if "data" not in record:
        return "it has no call"
    if len(record["data"]) > LONGEST_CALL:
        return "its call is too long"
    return ""


def _wrong_with_call(call: Any) -> str:
    """Return why a call is no wake-up's; empty if it is one."""
    name, instance, args, kwargs = call
    if name not in TASKS:
        return f"it names {name!r:.100}, which is no task"
    if instance is not None or kwargs or not isinstance(args, list) or len(args) != 1:
        return "its arguments are not the id of one row"
    if not isinstance(args[0], str) or str(UUID(args[0])) != args[0]:
        return "its argument is not an id"
    return ""
