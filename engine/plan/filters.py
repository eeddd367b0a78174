"""Checks include and exclude rules before a transfer begins."""

from __future__ import annotations

from collections.abc import Sequence

from engine import errors
from engine.agent.source.filters import Filter
from engine.agent.wire import AgentError


def check_filters(filters: Sequence[tuple[str, str]]) -> None:
    """Raises BadRequest if a rule is malformed; `agent.source.filters` describes the syntax."""
    try:
        Filter(filters)
    except AgentError as error:
        raise errors.BadRequest(str(error)) from error
