"""A job that began at a portal's old address does not take its new credential there."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models import Job
from jobs.running.request import request_for
from portals.endpoints import freeze
from portals.errors import PortalMoved
from portals.services import credential_create, portal_create, portal_update
from tests.factories import JobFactory
from tests.portals.helpers import HOST_KEY


@pytest.mark.parametrize("end", ["source", "target"])
def test_neither_end_is_reached_with_the_credential_of_another_address(db, end: str) -> None:
    """For the worker of the job, its helpers and the clean-up: all ask `portals_of`."""
    ssh: dict[str, Any] = {
        "kind": "ssh",
        "host": "nas",
        "port": 22,
        "username": "u",
        "root_path": "/srv",
    }
    old = credential_create(name="old", kind="password", secret="of the old host")
    portals = {
        name: portal_create(name=name, host_key=HOST_KEY, credential=old, **ssh)
        for name in ("source", "target")
    }
    frozen = {name: freeze(portal) for name, portal in portals.items()}
    job: Job = JobFactory.create(source_portal=portals["source"], target_portal=portals["target"])
    job.frozen = frozen
    assert request_for(job).target.ssh
    new = credential_create(name="new", kind="password", secret="of the new host")
    portal_update(portals[end], host="new-nas", credential=new)

    with pytest.raises(PortalMoved):
        request_for(job)
