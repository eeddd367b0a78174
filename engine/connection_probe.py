"""The connection test: reach a place, look, change nothing."""

from __future__ import annotations

import time

from engine import errors
from engine.hub import Hub
from engine.links import Link
from engine.types import Endpoint, Probe


@errors.on_this_machine()
def probe(endpoint: Endpoint) -> Probe:
    """What is at an endpoint; raises an EngineError where it cannot be reached or used."""
    began = time.monotonic()
    hub = Hub(lambda: None)
    try:
        link = Link(hub, endpoint)
        link.send_program()
        hello = link.greet()
        found = link.ask("look", root=endpoint.root, path=endpoint.path)
    finally:
        hub.close()
    return Probe(
        python=hello["python"],
        system=hello["system"],
        hostname=found["host"],
        realpath=found["real"],
        exists=found["kind"] != "absent",
        is_dir=found["kind"] == "folder",
        writable=found["writable"],
        free_bytes=found["free"],
        total_bytes=found["size"],
        free_inodes=found["free_inodes"],
        name_max=found["name_max"],
        case_folding=found["case_folding"],
        seconds=time.monotonic() - began,
    )
