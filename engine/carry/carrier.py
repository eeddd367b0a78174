"""Carrier: gives parcels to streams, and sends again the entries whose digests differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engine import errors
from engine.agent.wire import list_digest
from engine.carry.digest_check import DigestCheck
from engine.carry.in_flight import CarryObserver, ParcelInFlight, count_entries
from engine.carry.queue import ParcelQueue
from engine.carry.stream_pool import StreamPool
from engine.connect.agent_process import AgentProcess
from engine.parcels.builder import Parcel
from engine.parcels.spool import Spool
from engine.protocol.commands import (
    CLOSE_ARCHIVE,
    COMPLETE,
    DISCARD,
    EXPECT,
    FENCE_OUT,
    SEND,
)
from engine.protocol.messages import Done, Lost, Message, ParcelProgress
from engine.protocol.replies import (
    CloseArchiveReply,
    CompleteReply,
    FenceOutReply,
    HashReply,
    ReceivedReply,
    SentReply,
)
from engine.protocol.target_replies import StageReply
from engine.session.session import Session
from engine.session.stream import Stream
from engine.types import ParcelKind

#: Commands that a receiver gets between its parcels.
ORDERS = {order.op for order in (EXPECT, DISCARD, COMPLETE, CLOSE_ARCHIVE, FENCE_OUT)}
#: Parcels that a stream has under way: while one is being compared, the next one travels.
DEPTH = 2


class Carrier:
    """Moves all parcels of `queue` over the streams of `pool`, which may grow meanwhile.

    `check` decides which entries of a parcel are proven. `rate_limit` returns the bytes per
    second that all streams together may use now, 0 for no limit. `done` are the bytes and files
    that an earlier attempt moved.
    """

    def __init__(
        self,
        session: Session,
        spool: Spool,
        observer: CarryObserver,
        *,
        pool: StreamPool,
        queue: ParcelQueue,
        check: DigestCheck,
        rate_limit: Callable[[], int],
        done: tuple[int, int] = (0, 0),
    ) -> None:
        self._session, self._spool, self._observer = session, spool, observer
        self._pool, self._queue, self._rate_limit = pool, queue, rate_limit
        self._check = check
        self._in_flight: dict[Stream, deque[ParcelInFlight]] = {
            stream: deque() for stream in session.streams
        }
        self._bytes, self._files = done

    @property
    def stream_count(self) -> int:
        """Number of streams that carry parcels."""
        return len(self._in_flight)

    def carry(self, parcels: Iterable[Parcel]) -> None:
        """Carry parcels until every one is proven; raises the error that prevents it."""
        self._queue.waiting.extend(parcels)
        for stream in list(self._in_flight):
            self._fill(stream)
        self._pool.open(len(self._queue.waiting) + 1)
        self._work()
        files = self._check.whole_files
        if files and files.discard_broken():
            self._work()
        self._pool.stop_opening()

    def _work(self) -> None:
        """Handle messages until nothing is under way."""
        while (
            self._queue.has_work
            or self._check.is_busy
            or any(self._in_flight.values())
            or any(stream.has_orders for stream in self._in_flight)
        ):
            arrived = self._session.inbox.next_within(self._queue.look_seconds)
            if arrived:
                self._on_message(*arrived)
            if self._queue.look_is_due():
                self._look_elsewhere()
            busy = [stream for stream, flights in self._in_flight.items() if flights]
            self._pool.share_rate(self._rate_limit(), busy)

    def _on_message(self, agent: AgentProcess, message: Message) -> None:
        stream = self._pool.stream_of(agent)
        if stream is None:
            return
        if self._pool.is_opening(stream):
            if self._pool.take_in(stream, agent, message):
                self._in_flight[stream] = deque()
                self._fill(stream)  # At once: waiting for a reply would cost a round trip.
        elif isinstance(message, Lost):
            if not self._pool.lose(stream, agent, message):
                return
            unsent = self._in_flight.pop(stream)
            self._queue.put_back(flight.parcel for flight in reversed(unsent))
            for other in list(self._in_flight):
                self._fill(other)
        elif isinstance(message, ParcelProgress):
            for flight in self._in_flight[stream]:
                if flight.parcel.number == message.parcel:
                    # The read-back counts from 0 again; the bytes that arrived stay counted.
                    arrived = min(message.bytes, flight.parcel.bytes)
                    flight.moving_bytes = max(flight.moving_bytes, arrived)
            self._report()
        elif isinstance(message, Done):
            self._pool.attached(stream, agent)
            if agent is stream.target and message.op in ORDERS:
                stream.answered(message.op)
            if isinstance(message.reply, SentReply | ReceivedReply):
                self._on_report(stream, agent, message.reply)
            else:
                self._on_reply(stream, agent, message.reply)

    def _fill(self, stream: Stream) -> None:
        """Send parcels over a stream until DEPTH of them are under way."""
        flights = self._in_flight[stream]
        while len(flights) < DEPTH and (parcel := self._queue.next()):
            flight = ParcelInFlight(parcel, self._spool.get(parcel.block))
            flights.append(flight)
            busy = [stream for stream, flights in self._in_flight.items() if flights]
            self._pool.share_rate(self._rate_limit(), busy)
            self._observer.started(parcel)
            self._send(stream, flight)

    def _send(self, stream: Stream, flight: ParcelInFlight) -> None:
        request, parcel = self._session.request, flight.parcel
        flight.sent = flight.received = None
        flight.tries += 1
        flight.moving_bytes = 0
        head: dict[str, Any] = {"kind": flight.kind.value, "parcel": parcel.number}
        if flight.kind is ParcelKind.RANGE:
            head["slices"] = parcel.slices
        elif flight.kind is ParcelKind.ARCHIVE:
            head["name"] = self._session.aim.archive_name
        elif parcel.start and flight.tries == 1:
            head["starts"] = {"0": parcel.start}
        at_target = self._session.aim.list_at_target(flight.blob)
        renamed = b"" if at_target is flight.blob else at_target
        # The sender relays this order and cannot forge one; without it the receiver takes nothing.
        stream.order(EXPECT, head=head, digest=list_digest(at_target))
        stream.source.send(
            SEND,
            flight.blob + renamed,
            theirs=len(renamed),
            head=head,
            inject_fault=request.inject_fault,
            last=flight.kind is ParcelKind.ARCHIVE and not self._queue.waiting,
        )

    def _on_report(
        self, stream: Stream, agent: AgentProcess, report: SentReply | ReceivedReply
    ) -> None:
        """Handle one end's report of a parcel; compare them once both ends have reported."""
        of_source = agent is stream.source
        where = f"protocol error at {agent.place}"
        if of_source is not isinstance(report, SentReply):
            raise errors.AgentFailed(f"{where}: unexpected report; only the other end makes it")
        for flight in self._in_flight[stream]:
            if (flight.sent if of_source else flight.received) is None:
                break
        else:
            raise errors.AgentFailed(f"{where}: unexpected report; no parcel waits for one")
        if report.parcel != flight.parcel.number:
            raise errors.AgentFailed(
                f"{where}: report of parcel {report.parcel}, expected {flight.parcel.number}"
            )
        if isinstance(report, SentReply):
            flight.sent = report
        else:
            flight.received = report
        if flight.sent is None or flight.received is None:
            return
        if self._check.compare(stream, flight):
            self._in_flight[stream].remove(flight)
            self._in_flight[stream].append(flight)
            self._send(stream, flight)
        else:
            self._unload(stream, flight)

    def _on_reply(self, stream: Stream, agent: AgentProcess, reply: object) -> None:
        """Handle the reply to a command that is not about a parcel."""
        of_target = agent is stream.target
        if isinstance(reply, StageReply) and agent is self._session.target:
            self._session.staging.take_in(reply)
        elif isinstance(reply, CloseArchiveReply) and of_target:
            self._check.archive_closed(reply.digest)
        elif isinstance(reply, FenceOutReply) and of_target:
            self._queue.fenced_out(reply.label)
            self._fill(stream)
        elif isinstance(reply, CompleteReply) and of_target:
            self._on_digest(stream, reply.whole, reply.digest, of_target)
        elif isinstance(reply, HashReply) and not of_target:
            self._on_digest(stream, reply.whole, reply.digests, of_target)

    def _on_digest(self, stream: Stream, path: str, digest: bytes, of_target: bool) -> None:
        """Handle one end's digest of a file that was sent in slices."""
        files = self._check.whole_files
        whole = files.digest_came(path, digest, of_target) if files else None
        if not files or not whole:
            return
        if whole.is_proven:
            self._prove(whole.parcel, self._spool.get(whole.parcel.block), digest)
            self._report()
            return
        self._queue.waiting.extend(files.send_again(whole))
        self._bytes -= whole.large.entry.size
        self._fill(stream)

    def _unload(self, stream: Stream, flight: ParcelInFlight) -> None:
        """Remove and count a parcel that is proven, and send the next one."""
        self._in_flight[stream].remove(flight)
        self._bytes += flight.proven_bytes
        # A file that arrived in part before has more bytes than its parcel.
        known = flight.tries == 1 and not flight.parcel.start
        proven = flight.all_that_is_proven()
        self._account(stream, flight.parcel, proven, flight.blob if known else b"")
        self._report()
        self._fill(stream)

    def _account(
        self,
        stream: Stream,
        parcel: Parcel,
        proven: Sequence[tuple[bytes, bytes]],
        all_of_it: bytes = b"",
    ) -> None:
        """Report a parcel's proven entries; for `all_of_it` the parcel has the figures."""
        for entries, digests in proven:
            count = (parcel.files, parcel.bytes) if entries is all_of_it else None
            self._prove(parcel, entries, digests, count)
        if parcel.large:
            self._observer.verified(parcel, b"", b"", (0, 0))
            if self._check.whole_files:
                self._check.whole_files.slice_done(stream, parcel)

    def _prove(
        self, parcel: Parcel, entries: bytes, digests: bytes, count: tuple[int, int] | None = None
    ) -> None:
        files, size = count or count_entries(entries)
        self._files += files
        self._observer.verified(parcel, entries, digests, (files, size))

    def _look_elsewhere(self) -> None:
        """Count the parcels that other workers have carried, and lend them more."""
        for parcel, result in self._queue.results(max(self._pool.wanted, len(self._pool))):
            if parcel.large and result.failures:
                self._check.break_off(parcel.large, *result.failures[0][1:])
            elif parcel.large:
                self._bytes += parcel.bytes
            else:
                for path, code, sentence in result.failures:
                    self._observer.failed(path, code, sentence)
                self._observer.undelivered += result.undelivered
                self._bytes += sum(count_entries(entries)[1] for entries, _ in result.proven)
            self._account(self._session.streams[0], parcel, result.proven)
        self._queue.lend(len(self._pool))
        for stream in self._in_flight:
            self._fill(stream)
        self._report()

    def _report(self) -> None:
        moving = sum(
            max(flight.proven_bytes, flight.moving_bytes)
            for flights in self._in_flight.values()
            for flight in flights
        )
        self._observer.moved(self._bytes + moving + self._queue.moving_elsewhere, self._files)
