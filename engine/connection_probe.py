"""The connection test: reaches an endpoint, inspects it, changes nothing."""

from __future__ import annotations

import time

from engine import errors
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.connect.listener import HELLO_SECONDS, SILENCE_SECONDS, Patience
from engine.session.places import inspect
from engine.types import Endpoint, Probe

#: Seconds in which a host has to look at the place, whatever signs of work it shows: a person
#: waits, and the test has one of the web server's few threads.
LOOK_SECONDS = 60.0


@errors.on_this_machine()
def probe(endpoint: Endpoint) -> Probe:
    """Return what is at an endpoint; raises an EngineError if it cannot be reached or used."""
    began = time.monotonic()
    look = LOOK_SECONDS
    inbox = Inbox(lambda: None, Patience(HELLO_SECONDS, SILENCE_SECONDS, look, look, look))
    try:
        agent = AgentProcess(inbox, endpoint)
        agent.send_program()
        hello = agent.greet()
        found = inspect(agent, endpoint, exposed=True)
    finally:
        inbox.close()
    return Probe(
        python=hello.python,
        system=hello.system,
        hostname=found.host,
        realpath=found.real,
        exists=found.kind != "absent",
        is_dir=found.kind == "folder",
        writable=found.writable,
        free_bytes=found.free,
        total_bytes=found.size,
        free_inodes=found.free_inodes,
        name_max=found.name_max,
        case_folding=found.case_folding,
        exposed=found.exposed,
        seconds=time.monotonic() - began,
    )
