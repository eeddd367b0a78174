"""Chooses how many streams a transfer uses: a long round trip needs several channels."""

from __future__ import annotations

import math

from engine.parcels.builder import ParcelBuilder
from engine.session.session import Session

#: Bytes that one OpenSSH channel moves per round trip, at most (about).
CHANNEL_WINDOW = 2 << 20
#: Bytes per second that all channels together should reach.
WANTED_RATE = 320 << 20
#: A round trip below this (seconds) does not slow a channel down.
NEAR = 0.004
#: Bytes per stream, at least.
WORTH_A_STREAM = 16 << 20
#: More bytes than this, between machines with at least so many processors, use several streams.
MANY_CORES, MANY_BYTES = 8, 4 << 30


def choose_streams(session: Session, builder: ParcelBuilder) -> int:
    """Return the number of streams: as requested, or by round trip and processors."""
    request, size = session.request, builder.bytes
    most = max(1, len(builder.parcels) + builder.large_bytes // WORTH_A_STREAM)
    if session.aim.archive_name:
        return 1
    if request.streams:
        return min(request.streams, most)
    wanted = 1
    remote = request.source.ssh or request.target.ssh
    if remote and session.round_trip > NEAR:
        wanted = math.ceil(session.round_trip * WANTED_RATE / CHANNEL_WINDOW)
        if request.bwlimit:
            enough = math.ceil(2 * session.round_trip * request.bwlimit / CHANNEL_WINDOW)
            wanted = min(wanted, enough)
    cores = min(session.source_found.cores, session.target_found.cores)
    if remote and cores >= MANY_CORES and size > MANY_BYTES and not request.bwlimit:
        wanted = max(wanted, cores // 4)
    return max(1, min(wanted, request.max_streams, most, math.ceil(size / WORTH_A_STREAM)))
