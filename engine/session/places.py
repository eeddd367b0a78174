"""Names a place to an agent, and pins a root to the folder that was found there."""

from __future__ import annotations

from typing import Any

from engine.connect.agent_process import AgentProcess
from engine.protocol.commands import INSPECT
from engine.protocol.replies import InspectReply
from engine.types import Endpoint


def named(endpoint: Endpoint, path: str | None = None) -> dict[str, Any]:
    """Return a command's arguments for a place below an endpoint's root, by default its own."""
    place = {"root": endpoint.root, "path": endpoint.path if path is None else path}
    return {**place, "real_root": endpoint.real_root} if endpoint.real_root else place


def inspect(
    agent: AgentProcess, endpoint: Endpoint, path: str | None = None, **more: Any
) -> InspectReply:
    """Ask an agent what is at a place below an endpoint's root."""
    return agent.request(INSPECT, **named(endpoint, path), **more)


def pinned(endpoint: Endpoint, found: InspectReply) -> Endpoint:
    """Return the endpoint with its root pinned to the folder that was found."""
    return endpoint._replace(real_root=found.root) if found.has_root else endpoint
