"""Finds out why an agent ended or does not get on, and which of several agents is the cause."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from engine import errors
from engine.protocol.commands import SCAN
from engine.protocol.fields import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.connect.agent_process import AgentProcess
    from engine.connect.listener import Patience

#: Seconds that agents get to end by themselves, and again after each signal.
ENDING_SECONDS = 1.0
#: Seconds to wait for the exit of a process whose messages have ended.
_EXIT_SECONDS = 5.0
#: Bytes per second at which a step may read what was announced; slower steps end.
_SLOWEST = 1 << 20
#: The `blame_rank` of an agent that ended in order: some other end is the cause.
ORDERLY = 2
#: How an agent begins a sentence about its host, whose name it does not know.
_ITS_HOST = "the host"
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
    if sentence.startswith(_ITS_HOST):
        sentence = agent.place + sentence[len(_ITS_HOST) :]
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


def cause_of_death(agent: AgentProcess, patience: Patience) -> errors.EngineError:
    """Return the error that says why the agent's messages ended."""
    agent.child.has_ended(time.monotonic() + min(_EXIT_SECONDS, patience.standstill))
    noise = agent.listener.noise.decode("utf-8", "replace")
    error = agent.access.explain(agent.child.status, noise, agent.greeted)
    if agent.access.is_remote and (agent.child.status == 255 or not agent.greeted):
        error.of_target = agent.is_target  # The login failed: a person may have to fix that portal.
    return error


def stalled(
    agents: list[AgentProcess], now: float, patience: Patience, announced: int
) -> Iterator[tuple[AgentProcess, errors.EngineError]]:
    """Yield each agent that is silent, or does not get on with its step, with the error.

    `announced` is the number of bytes that the transfer may read in one step. Two agents stand
    still if one of them hangs; an agent that waits for the other end is not the cause.
    """
    still, others_work = [], False
    for agent in agents:
        if agent.child.is_closed:
            continue
        error = _silence(agent, now, patience) or _endless_step(agent, now, patience, announced)
        if error:
            yield agent, error
        elif _stands_still(agent, now, patience):
            still.append(agent)
        elif agent.listener.pulse.step(now):
            others_work = True
    causes = [agent for agent in still if not agent.listener.pulse.waits]
    for agent in causes or ([] if others_work else still):
        pulse = agent.listener.pulse
        waits = "; it waits for the other end" if pulse.waits else ""
        yield (
            agent,
            errors.Stalled(
                f"{agent.place} has shown no sign of work for {pulse.standstill(now):.0f} s"
                f"{step_of(agent, now)}{waits}"
            ),
        )


def _silence(agent: AgentProcess, now: float, patience: Patience) -> errors.EngineError | None:
    silent = agent.listener.pulse.silence(now)
    if not agent.greeted and silent > patience.hello:
        noise = agent.listener.noise.decode("utf-8", "replace")
        error = agent.access.explain_silence(patience.hello, noise)
        error.of_target = agent.is_target
        return error
    if agent.greeted and silent > patience.silence:
        return errors.Stalled(
            f"{agent.place} has been silent for {silent:.0f} s{step_of(agent, now)}"
        )
    return None


def _endless_step(
    agent: AgentProcess, now: float, patience: Patience, announced: int
) -> errors.EngineError | None:
    if (step := agent.listener.pulse.step(now)) is None:
        return None
    command, seconds = step
    # A source that lists for ever also announces for ever.
    limit = patience.step + (0 if command is SCAN else announced / _SLOWEST)
    if seconds <= limit:
        return None
    shown = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
    return errors.Stalled(f"{agent.place} has not ended the step “{command.step}” in {shown}")


def _stands_still(agent: AgentProcess, now: float, patience: Patience) -> bool:
    pulse = agent.listener.pulse
    if (step := pulse.step(now)) is None:
        return False
    limit = patience.flush if step[0].flushes else patience.standstill
    return min(step[1], pulse.standstill(now)) > limit


def step_of(agent: AgentProcess, now: float) -> str:
    """Return the words that name an agent's present step; empty if it has none."""
    step = agent.listener.pulse.step(now)
    return f", at the step “{step[0].step}”" if step else ""
