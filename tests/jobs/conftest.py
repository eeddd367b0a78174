"""What the tests of jobs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from jobs.models import Job
from jobs.states import TIMED, Status
from portals.models import Portal
from portals.services import credential_create, portal_create
from tests.factories import JobFactory, PortalFactory
from tests.jobs.helpers import MEGABYTE
from tests.rig.relay import Relay
from tests.rig.sshd import Sshd


@pytest.fixture
def job_in(db: None) -> Callable[..., Job]:
    """Make a job in a state, as a row only: no event, no wake-up."""

    def make(status: Status, **fields: Any) -> Job:
        now = timezone.now()
        if status is Status.RUNNING:
            lease = now + timedelta(seconds=60)
            mine = {"attempt": 1, "worker": "w1", "lease_until": lease, "heartbeat_at": now}
            fields = {**mine, **fields}
        if status in TIMED:
            fields.setdefault("next_run_at", now + timedelta(hours=1))
        fields.setdefault("queued_at", now)
        return JobFactory.create(status=status, **fields)

    return make


@pytest.fixture
def lab(db: None, tmp_path: Path) -> Portal:
    """A portal on this machine with a folder of its own."""
    return _portal("lab", tmp_path / "lab")


@pytest.fixture
def srvtrf(db: None, tmp_path: Path) -> Portal:
    """Another one."""
    return _portal("srvtrf", tmp_path / "srvtrf")


def _portal(name: str, root: Path) -> Portal:
    root.mkdir()
    return PortalFactory.create(name=name, root_path=str(root))


@pytest.fixture
def line(sshd: Sshd) -> Iterator[Relay]:
    """The way to the far host: slow, until a test makes it fast."""
    with Relay(sshd.host, sshd.port) as relay:
        relay.rate = 2 * MEGABYTE
        yield relay


@pytest.fixture
def far(db: None, sshd: Sshd, line: Relay, tmp_path: Path) -> Portal:
    """A portal behind that line."""
    key = credential_create(name="rig", kind="private_key", secret=sshd.identity_file.read_text())
    root = tmp_path / "far"
    root.mkdir()
    return portal_create(
        name="far",
        kind="ssh",
        host=line.host,
        port=line.port,
        username=sshd.username,
        root_path=str(root),
        host_key=sshd.host_key,
        credential=key,
    )


@pytest.fixture
def order(lab: Portal, srvtrf: Portal) -> dict[str, Any]:
    """The least that `job_create` needs, without who asks."""
    return {
        "source_portal": lab,
        "source_path": "day1",
        "target_portal": srvtrf,
        "target_path": "in/day1",
    }


@pytest.fixture
def body(lab: Portal, srvtrf: Portal) -> dict[str, Any]:
    """The least that a launch through the API needs."""
    return {
        "source_portal": "lab",
        "source_path": "day1",
        "target_portal": "srvtrf",
        "target_path": "in/day1",
    }


@pytest.fixture
def form(lab: Portal, srvtrf: Portal) -> dict[str, Any]:
    """The launch form of the admin, filled in."""
    return {
        "mode": "copy",
        "source_portal": lab.pk,
        "source_path": "day1",
        "target_portal": srvtrf.pk,
        "target_path": "in/day1",
        "strategy": "auto",
        "verify": "",
        "on_conflict": "fail",
        "symlinks": "keep",
        "hard_links": "copy",
        "include": "*.mov\n\n *.wav ",
        "exclude": "",
        "streams": 2,
        "bandwidth_limit": 0,
        "priority": 0,
        "max_tries": 50,
    }


@pytest.fixture
def at_admin(client: Client) -> Callable[[User], Client]:
    """A browser in which a user is logged in."""

    def make(user: User) -> Client:
        client.force_login(user)
        return client

    return make
