"""`manage.py rqworker` started by root says what that means."""

from __future__ import annotations

import os

import pytest
from django.core.management import call_command
from django_rq.management.commands import rqworker


@pytest.mark.parametrize(("uid", "warned"), [(0, True), (1000, False)])
def test_a_worker_warns_if_it_runs_as_root(
    uid: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    ran: list[object] = []
    monkeypatch.setattr(rqworker.Command, "handle", lambda *args, **options: ran.append(options))

    call_command("rqworker")

    assert len(ran) == 1
    assert ("This worker runs as root" in caplog.text) is warned
