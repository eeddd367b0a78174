"""When two digests agree, and whether a reply has a value for each entry that was asked about.

Both ends' hosts may lie: an agent that reports no digest has proven nothing, whatever the other
one reports.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from engine.agent.wire import DIGEST, NO_DIGEST, AgentError


class Digests(Protocol):
    """A reply with the digests of entries."""

    @property
    def digests(self) -> bytes: ...


Reply = TypeVar("Reply", bound=Digests)


def agree(ours: bytes, theirs: bytes) -> bool:
    """True if both are the same digest; False for NO_DIGEST, and for what is no whole digest."""
    return ours == theirs != NO_DIGEST and len(ours) == DIGEST


def all_agree(ours: bytes, theirs: bytes, count: int) -> bool:
    """True if both lists have `count` digests, and each agrees with the other list's."""
    return ours == theirs and len(ours) == DIGEST * count and NO_DIGEST not in ours


def digest_at(digests: bytes, index: int) -> bytes:
    """Return the digest at a position of a list of digests."""
    return digests[index * DIGEST : (index + 1) * DIGEST]


def require_count(found: int, asked: int) -> None:
    """Raises AgentError (AGENT_FAILED) unless a reply is about as many entries as asked for."""
    if found != asked:
        raise AgentError(
            "AGENT_FAILED",
            f"protocol error: number of entries in a reply: {found}, expected {asked}",
        )


def require_digests(reply: Reply, asked: int) -> Reply:
    """Return a reply; raises AgentError (AGENT_FAILED) unless it has `asked` digests."""
    require_count(len(reply.digests) // DIGEST, asked)
    return reply
