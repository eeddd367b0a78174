"""StreamPool: opens a transfer's further streams, drops those that fail, shares the rate."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engine import errors
from engine.connect.agent_process import AgentProcess
from engine.protocol.commands import RATE
from engine.protocol.messages import Hello, Lost, Message
from engine.session.session import Session
from engine.session.stream import Stream

#: With so many bytes or more, each stream has its own connection: that takes longer to open,
#: but a lost packet then delays one stream, not all.
OWN_CONNECTION = 1 << 30


class StreamPool:
    """The streams of one transfer, of which at most `wanted` carry at a time.

    `size` is the transfer's, in bytes. `warn` gets code and sentence of a stream that failed to
    open. `rates` holds the bytes per second that each stream's source was last given.
    """

    def __init__(
        self,
        session: Session,
        *,
        wanted: int,
        size: int,
        warn: Callable[[str, str], None],
        rates: dict[Stream, int] | None = None,
    ) -> None:
        self._session, self._warn = session, warn
        self._shared = size < OWN_CONNECTION
        self.wanted = wanted
        self._carrying: set[Stream] = set(session.streams)
        self._stream_of: dict[AgentProcess, Stream] = {}
        #: By stream, the agents that have not introduced themselves yet.
        self._opening: dict[Stream, set[AgentProcess]] = {}
        #: By stream, the agents that have not replied yet that they found the transfer's place.
        self._attaching: dict[Stream, set[AgentProcess]] = {}
        #: By stream that still attaches, the end of its source: its target may be the cause.
        self._source_ended: dict[Stream, Lost] = {}
        self._rates = {} if rates is None else rates
        for stream in session.streams:
            self._register(stream)

    def __len__(self) -> int:
        return len(self._carrying)

    def stream_of(self, agent: AgentProcess) -> Stream | None:
        """Return the stream that an agent is an end of; None if the pool has dropped it."""
        return self._stream_of.get(agent)

    def open(self, most: int) -> None:
        """Start to open streams, until `most` carry or are being opened, or as many as wanted."""
        while len(self._carrying) + len(self._opening) < min(self.wanted, most):
            stream = self._session.start_stream(self._shared)
            self._register(stream)
            self._opening[stream] = {stream.source, stream.target}

    def is_opening(self, stream: Stream) -> bool:
        """True if a stream does not carry parcels yet."""
        return stream in self._opening

    def take_in(self, stream: Stream, agent: AgentProcess, message: Message) -> bool:
        """Handle a message from an agent of an opening stream; True once the stream can carry."""
        ends = self._opening[stream]
        if isinstance(message, Lost):
            del self._opening[stream]
            self._do_without(stream, message.error)
        elif isinstance(message, Hello):
            ends.discard(agent)
            if not ends:
                del self._opening[stream]
                self._session.welcome(stream)
                self._session.streams.append(stream)
                self._carrying.add(stream)
                self._attaching[stream] = {stream.source, stream.target}
                return True
        return False

    def attached(self, stream: Stream, agent: AgentProcess) -> None:
        """Record that an agent of a stream has replied: it has found the transfer's place.

        Raises the error that ended the stream's source meanwhile: the target did not cause it.
        """
        self._attaching.get(stream, set()).discard(agent)
        if agent is stream.target and stream in self._source_ended:
            raise self._source_ended[stream].error

    def lose(self, stream: Stream, agent: AgentProcess, lost: Lost) -> bool:
        """Drop a stream, and return True; False if that waits for the word of its target.

        Raises the error that ended the stream if it may have carried parcels. A target that is
        refused its place ends; then the pipe breaks, and the source ends, too. Which of both is
        heard first is chance.
        """
        attaching = self._attaching.get(stream, set())
        if agent not in attaching or not lost.reported:
            if agent is stream.source and not lost.reported and stream.target in attaching:
                self._source_ended[stream] = lost
                return False
            raise self._source_ended.get(stream, lost).error
        del self._attaching[stream]
        self._source_ended.pop(stream, None)
        self._session.streams.remove(stream)
        self._carrying.discard(stream)
        self._do_without(stream, lost.error)
        return True

    def stop_opening(self) -> None:
        """Drop all streams that are still being opened."""
        for stream in self._opening:
            self._drop(stream)
        self._opening.clear()

    def share_rate(self, limit: int, busy: Collection[Stream]) -> None:
        """Share `limit` (bytes per second, 0 for none) among the streams that are busy."""
        for stream in busy:
            rate = max(1, limit // len(busy)) if limit else 0
            if self._rates.get(stream, 0) != rate:
                self._rates[stream] = rate
                stream.source.send(RATE, rate=rate)

    def _do_without(self, stream: Stream, why: errors.EngineError) -> None:
        """Drop a stream and warn: the transfer is slower, nothing worse."""
        self.wanted = len(self._carrying) + len(self._opening)
        self._warn("STREAM_REFUSED", f"the transfer goes on with one stream less: {why}")
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """Close a stream that never carried; later messages of its agents are ignored."""
        stream.close()
        del self._stream_of[stream.source], self._stream_of[stream.target]

    def _register(self, stream: Stream) -> None:
        self._stream_of[stream.source] = self._stream_of[stream.target] = stream
