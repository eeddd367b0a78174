"""Include and exclude rules, looked at before a transfer begins."""

from __future__ import annotations

from collections.abc import Sequence

from engine import errors
from engine.agent.filters import Filter
from engine.agent.wire import AgentError


def check_filters(filters: Sequence[tuple[str, str]]) -> None:
    """BadRequest if a rule cannot be understood; see `agent.filters` for what can."""
    try:
        Filter(filters)
    except AgentError as error:
        raise errors.BadRequest(str(error)) from error
