"""`manage.py dku` as a process, on real servers, with a real worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from rq.suspension import suspend

from dku.findings import Check
from dku.management.commands import dku as command
from jobs.models import Job
from jobs.states import Status
from portals.models import Portal

SMOKE = ["smoke: small folder", "smoke: many files", "smoke: large file"]
DRILL = "smoke: damaged byte"


def smoke_folders() -> list[Path]:
    return [Path(settings.VAR_DIR) / "dku" / name for name in ("source", "target")]


def assert_nothing_left() -> None:
    assert [p for folder in smoke_folders() if folder.exists() for p in folder.iterdir()] == []
    assert list((Path(settings.VAR_DIR) / "dku").glob("drill-*")) == []


def test_dku_passes_a_healthy_installation_after_real_transfers(dku, worker, web):
    worker()
    found = dku(KETTER_WEB_URL=web)

    # The disks are whatever this machine has; all else must be well.
    wrong = [c for c in found.report["checks"] if c["verdict"] != "pass" and c["name"] != "disk"]
    assert wrong == []
    assert found.code == found.report["exit_code"]
    assert found.code in (0, 1) or found["disk"]["verdict"] == "fail"
    assert [c["name"] for c in found.report["checks"]][-4:] == [*SMOKE, DRILL]
    assert found["smoke: many files"]["measured"]["parcel_kinds"] == ["zip"]
    assert found["smoke: large file"]["measured"]["mb_per_second"] > 0
    assert found["postgres"]["measured"]["latency_ms"] > 0
    assert found[DRILL]["measured"]["code"] == "CHECKSUM_MISMATCH"

    jobs = Job.objects.order_by("created_at")
    assert [job.status for job in jobs] == [Status.DONE] * 3
    assert {str(job.pk) for job in jobs} == {found[name]["measured"]["job"] for name in SMOKE}
    assert {job.requested_by.username for job in jobs} == {"dku"}
    assert not User.objects.get(username="dku").has_usable_password()
    assert set(Portal.objects.values_list("name", flat=True)) == {"dku-source", "dku-target"}
    assert_nothing_left()


def test_dku_writes_the_same_report_as_text_and_as_json(dku):
    found = dku("--no-smoke")

    (text,) = found.folder.glob("dku_*.txt")
    (data,) = found.folder.glob("dku_*.json")
    assert text.stem == data.stem
    assert json.loads(data.read_text()) == found.report
    written = text.read_text()
    assert "\x1b" not in written
    for check in found.report["checks"]:
        assert check["name"] in written
        assert check["value"] in written
        assert check["seconds"] >= 0
    assert found.report["ketter"] in written
    assert found.report["host"] in written
    assert str(text) in found.stderr


def test_dku_fails_without_a_worker_and_launches_no_job(dku):
    found = dku()

    assert found.code == 2
    assert found["workers"]["verdict"] == found["reaper"]["verdict"] == "fail"
    assert "manage.py rqworker" in found["workers"]["remedy"]
    for name in SMOKE:
        assert found[name]["sentence"] == "No worker is alive, so no job was launched."
    assert found[DRILL]["verdict"] == "pass"
    assert Job.objects.count() == 0


def test_dku_reports_a_killed_worker_at_once(dku, worker):
    process = worker()
    process.kill()
    process.wait()

    found = dku("--no-smoke")

    assert found["workers"]["verdict"] == "fail"
    assert "its process is gone" in found["workers"]["details"][0]


def test_dku_fails_while_the_workers_are_suspended(dku, worker, clean_redis):
    worker()
    suspend(clean_redis)

    found = dku("--no-smoke")

    assert found["workers"]["verdict"] == "fail"
    assert "rqresume" in found["workers"]["remedy"]


def test_dku_cancels_its_jobs_when_a_worker_does_not_start_them_in_time(dku, worker):
    process = worker()
    os.kill(process.pid, signal.SIGSTOP)
    try:
        found = dku("--timeout", "0.5")
    finally:
        os.kill(process.pid, signal.SIGCONT)

    assert found.code == 2
    assert "still queued after" in found[SMOKE[0]]["sentence"]
    assert set(Job.objects.values_list("status", flat=True)) == {Status.CANCELLED}
    assert_nothing_left()


@pytest.mark.parametrize(
    ("name", "check", "value"),
    [
        ("REDIS_URL", "redis", "unix:///nonexistent/valkey.sock"),
        ("DATABASE_URL", "postgres", "postgresql://ketter@127.0.0.1:1/ketter"),
    ],
)
def test_dku_reports_a_server_that_is_down_without_a_traceback(dku, name, check, value):
    found = dku(**{name: value})

    assert found.code == 2
    assert found[check]["verdict"] == "fail"
    assert found[check]["remedy"]
    assert {found[smoke]["value"] for smoke in SMOKE} == {"not measured"}
    assert found[DRILL]["verdict"] == "pass"
    assert "Traceback" not in found.stderr + json.dumps(found.report)


def test_dku_shows_no_secret_in_any_output(dku, worker_env):
    found = dku(
        DATABASE_URL="postgresql://ketter:correct-horse-db@127.0.0.1:1/ketter",
        REDIS_URL="redis://:correct-horse-redis@127.0.0.1:1/0",
    )

    files = "".join(path.read_text() for path in found.folder.iterdir())
    everything = files + found.stderr + json.dumps(found.report)
    for secret in (worker_env["KETTER_SECRET_KEY"], worker_env["KETTER_FIELD_KEYS"], "correct-"):
        assert secret not in everything


def test_dku_fails_while_a_migration_is_pending(db, clean_redis, tmp_path, capsys):
    # Within the test's transaction, so it is applied again afterwards.
    ((app, last),) = MigrationLoader(connection).graph.leaf_nodes("jobs")
    MigrationRecorder(connection).record_unapplied(app, last)

    with pytest.raises(SystemExit) as ended:
        call_command("dku", "--no-smoke", "--json", "--out", str(tmp_path))

    assert ended.value.code == 2
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["migrations"]["verdict"] == "fail"
    assert f"jobs.{last}" in checks["migrations"]["details"]
    assert checks["portals"]["sentence"] == "This needs migrations, which failed."


def test_dku_ends_without_a_traceback_when_it_is_interrupted(monkeypatch, capsys):
    def interrupted(**_: object) -> list[Check]:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "checks", interrupted)
    with pytest.raises(SystemExit) as ended:
        call_command("dku")

    assert ended.value.code == 130
    assert "nothing is proven" in capsys.readouterr().err


@pytest.fixture
def quiet(monkeypatch) -> Callable[[], int]:
    """Run the command with no check at all; its exit status."""
    monkeypatch.setattr(command, "checks", lambda **_: [])

    def run(*arguments: str) -> int:
        try:
            call_command("dku", *arguments)
        except SystemExit as ended:
            return int(str(ended.code))
        return 0

    return run


def test_dku_writes_its_report_below_var_when_docs_is_not_writable(
    quiet, monkeypatch, tmp_path, settings
):
    blocked = tmp_path / "project"
    blocked.touch()
    monkeypatch.setattr(command, "BASE_DIR", blocked)
    settings.VAR_DIR = tmp_path / "var"

    assert quiet() == 0
    assert len(list((tmp_path / "var" / "dku_reports").glob("dku_*"))) == 2


def test_dku_fails_when_the_report_cannot_be_written_to_the_given_folder(quiet, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.touch()

    assert quiet("--out", str(blocked)) == 2
    assert f"No report in {blocked}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_dku_refuses_a_timeout_that_is_not_a_positive_number(text):
    with pytest.raises(ValueError, match=text):
        command.positive(text)
