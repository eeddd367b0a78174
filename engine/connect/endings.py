"""Finds out why an agent ended, and which of several agents' ends caused the others."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from engine import errors
from engine.protocol.fields import Failure

if TYPE_CHECKING:
    from engine.connect.agent_process import AgentProcess

#: Seconds that agents get to end by themselves, and again after each signal.
ENDING_SECONDS = 1.0
#: Seconds to wait for the exit of a process whose messages have ended.
_EXIT_SECONDS = 5.0
#: The `blame_rank` of an agent that ended in order: some other end is the cause.
ORDERLY = 2
#: Codes that only a target may report.
_TARGET_CODES = ("REPLACED", "TARGET_BUSY")


def error_of(agent: AgentProcess, failure: Failure) -> errors.EngineError:
    """Return the error that an agent reports; AgentFailed for a code that it cannot know.

    Only a target knows which attempt is current.
    """
    code, sentence = failure
    if code not in errors.AGENT_CODES or (code in _TARGET_CODES and not agent.is_target):
        return errors.AgentFailed(
            f"the agent on {agent.place} reports {code}, which it cannot know: {sentence}"
        )
    error = errors.from_code(code, sentence)
    if isinstance(error, errors.RootMoved):
        error.of_target = agent.is_target
    return error


def terminate(agent: AgentProcess) -> None:
    """End the local process of a remote agent or of a source at once; a far agent notices that."""
    agent.child.send_signal(
        signal.SIGTERM if agent.access.is_remote or not agent.is_target else None
    )


def blame_rank(agent: AgentProcess) -> int:
    """Sort key for root causes: 0 = a connection, 1 = a failed agent, ORDERLY = a clean exit."""
    if agent.access.is_remote:
        return 0
    agent.child.has_ended(time.monotonic() + ENDING_SECONDS)
    return 1 if agent.child.process is None or agent.child.status else ORDERLY


def cause_of_death(agent: AgentProcess) -> errors.EngineError:
    """Return the error that says why the agent's messages ended."""
    agent.child.has_ended(time.monotonic() + _EXIT_SECONDS)
    noise = agent.listener.noise.decode("utf-8", "replace")
    error = agent.access.explain(agent.child.status, noise, agent.greeted)
    if agent.access.is_remote and (agent.child.status == 255 or not agent.greeted):
        error.of_target = agent.is_target  # The login failed: a person may have to fix that portal.
    return error
