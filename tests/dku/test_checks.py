"""The single checks, and how they are strung together."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.db import OperationalError

from dku.checks import installation, places, services
from dku.diagnosis import diagnose
from dku.findings import Check, Finding, Verdict, worst
from dku.redaction import HIDDEN, redacted
from dku.report import finding_text
from portals.machines import machine_seen
from portals.models import Credential, Portal, PortalHealth
from portals.services import credential_create
from tests.factories import PortalFactory

OK = Finding(Verdict.PASS, "fine", "All is well.")
BAD = Finding(Verdict.FAIL, "bad", "It is broken.")
Usage = namedtuple("Usage", "total used free")
STRONG = "k7-Qw_9zLmX2vB4nT8rY1uI5oP0aS3dF6gH-jKeWcRtUxZ_q"


def test_the_exit_code_follows_the_worst_verdict():
    assert worst([]).exit_code == 0
    assert worst([Verdict.PASS, Verdict.WARN]).exit_code == 1
    assert worst([Verdict.FAIL, Verdict.WARN, Verdict.PASS]).exit_code == 2


def test_diagnose_continues_after_a_failure_and_skips_only_dependent_checks():
    asked = []

    def asking(name: str) -> Callable[[], Finding]:
        def probe() -> Finding:
            asked.append(name)
            return OK

        return probe

    todo = [
        Check("a", lambda: BAD),
        Check("b", asking("b"), needs=("a",)),
        Check("c", asking("c"), needs=("b",)),
        Check("d", asking("d")),
    ]
    found = list(diagnose(todo))

    assert [f.verdict for f in found] == [Verdict.FAIL, Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert found[2].sentence == "This needs b, which failed."
    assert asked == ["d"]


def test_diagnose_turns_an_exception_in_a_check_into_a_failed_finding(caplog):
    def down() -> Finding:
        raise OperationalError("connection refused\n\tmore")

    def bug() -> Finding:
        raise KeyError("oops")

    first, second, third = diagnose([Check("x", down), Check("y", bug), Check("z", lambda: OK)])

    assert first.sentence == "connection refused"
    assert "The check itself failed: KeyError" in second.sentence
    assert third.verdict is Verdict.PASS
    # A bug leaves its traceback in the log, what was foreseen does not.
    assert [record.getMessage() for record in caplog.records] == ["The check y itself failed"]


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({}, Verdict.PASS, "sound"),
        ({"SECRET_KEY": "short"}, Verdict.FAIL, "KETTER_SECRET_KEY"),
        ({"SECRET_KEY": "a" * 60}, Verdict.FAIL, "KETTER_SECRET_KEY"),
        ({"FIELD_KEYS": ["not-a-key"]}, Verdict.FAIL, "key 1"),
        ({"DEBUG": True}, Verdict.WARN, "KETTER_DEBUG"),
        ({"DEBUG": True, "ALLOWED_HOSTS": ["ketter.lab"]}, Verdict.FAIL, "KETTER_DEBUG"),
        ({"ALLOWED_HOSTS": []}, Verdict.FAIL, "KETTER_ALLOWED_HOSTS"),
        ({"ALLOWED_HOSTS": ["*"]}, Verdict.WARN, "KETTER_ALLOWED_HOSTS"),
    ],
)
def test_the_configuration_check_fails_or_warns_about_unsafe_settings(
    settings, changes, verdict, word
):
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
    for name, value in changes.items():
        setattr(settings, name, value)

    found = installation.configuration()

    assert found.verdict is verdict
    assert word in found.sentence
    assert "short" not in found.value + found.sentence
    assert "not-a-key" not in found.value + found.sentence


def test_the_credentials_check_passes_when_every_credential_opens(db):
    credential_create(name="lab", kind="password", secret="hunter2-hunter2")
    assert installation.credentials().verdict is Verdict.PASS


def test_the_credentials_check_names_credentials_that_do_not_open(db, settings):
    credential_create(name="lab", kind="password", secret="hunter2-hunter2")
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]

    found = installation.credentials()

    assert found.verdict is Verdict.FAIL
    assert found.details[0].startswith("lab: ")


def test_the_credentials_check_counts_the_secrets_of_an_older_version(db, settings):
    row = credential_create(name="lab", kind="password", secret="hunter2-hunter2")
    older = Fernet(settings.FIELD_KEYS[0]).encrypt(b"a secret").decode()
    Credential.objects.filter(pk=row.pk).update(secret=older)

    found = installation.credentials()

    assert (found.verdict, found.measured["unbound"]) == (Verdict.WARN, 1)
    assert "1 secret(s) are of an older Ketter, and would open in any row: lab" in str(found)


def test_the_credentials_check_warns_of_key_files_that_are_missing_or_readable_by_others(
    db, tmp_path
):
    key = tmp_path / "id_ed25519"
    key.write_text("key")
    key.chmod(0o644)
    credential_create(name="open", kind="key_file", key_path=str(key))
    credential_create(name="gone", kind="key_file", key_path=str(tmp_path / "none"))

    found = installation.credentials()

    assert found.verdict is Verdict.WARN
    assert [line.split(":")[0] for line in found.details] == ["gone", "open"]


def test_the_server_checks_measure_postgres_migrations_and_redis(db, clean_redis):
    assert services.postgres().measured["latency_ms"] > 0
    assert services.migrations().verdict is Verdict.PASS
    assert services.redis().measured["waiting"] == 0


def test_the_web_check_asks_for_ketter_web_url_when_no_address_is_known(
    settings, monkeypatch, tmp_path
):
    monkeypatch.delenv("KETTER_WEB_URL", raising=False)
    settings.VAR_DIR = tmp_path

    found = services.web()

    assert found.verdict is Verdict.WARN
    assert "KETTER_WEB_URL" in found.remedy


def test_the_web_check_uses_the_address_that_up_has_saved(settings, monkeypatch, tmp_path):
    monkeypatch.delenv("KETTER_WEB_URL", raising=False)
    settings.VAR_DIR = tmp_path
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "web.url").write_text("http://127.0.0.1:1/\n")

    found = services.web()

    assert found.verdict is Verdict.FAIL
    assert found.value == "http://127.0.0.1:1"
    assert "does not answer" in found.sentence


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8000"])
def test_the_web_check_refuses_an_address_that_is_not_http(monkeypatch, url):
    monkeypatch.setenv("KETTER_WEB_URL", url)
    sentence = "This is not a web address: it begins with neither http:// nor https://."
    assert services.web().sentence == sentence


def test_the_web_check_fails_when_the_web_process_is_unhealthy(clean_redis, web, monkeypatch):
    # No worker runs, so /health answers 503.
    monkeypatch.setenv("KETTER_WEB_URL", web)

    found = services.web()

    assert found.verdict is Verdict.FAIL
    assert "503" in found.sentence


def test_the_web_check_notices_an_answer_that_is_not_from_ketter(web, monkeypatch):
    monkeypatch.setenv("KETTER_WEB_URL", f"{web}/nothing-here")
    assert "is not Ketter" in services.web().sentence


@pytest.mark.parametrize(
    ("free", "verdict"), [(4.9, Verdict.FAIL), (19.9, Verdict.WARN), (20, Verdict.PASS)]
)
def test_the_disk_check_judges_the_free_space_of_each_folder(
    db, monkeypatch, tmp_path, free, verdict
):
    PortalFactory(name="lab", root_path=str(tmp_path))
    usage = Usage(1000, 0, int(free * 10))
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: usage if Path(path) == tmp_path else Usage(1000, 0, 900),
    )

    found = places.disk()

    assert found.verdict is verdict
    assert [look["name"] for look in found.measured["folders"]] == ["var", "lab"]
    assert ("lab" in found.sentence) == (verdict is not Verdict.PASS)


def test_the_disk_check_fails_when_the_var_folder_is_not_writable(db, settings, tmp_path):
    settings.VAR_DIR = tmp_path / "none"

    found = places.disk()

    assert found.verdict is Verdict.FAIL
    assert "not writable" in found.sentence


def test_the_credentials_check_reports_an_invalid_field_key_without_a_traceback(
    db, settings, caplog
):
    credential_create(name="lab", kind="password", secret="hunter2-hunter2")
    settings.FIELD_KEYS = ["not-a-key"]

    (found,) = diagnose([Check("credentials", installation.credentials)])

    assert found.verdict is Verdict.FAIL
    assert "not a Fernet key" in found.sentence
    assert caplog.records == []


def test_the_portals_check_warns_of_active_portals_that_cannot_be_used(transactional_db, tmp_path):
    PortalFactory(name="lab", root_path=str(tmp_path))
    PortalFactory(name="gone", root_path=str(tmp_path / "none"))
    PortalFactory(name="off", root_path=str(tmp_path / "none"), state="disabled")

    found = places.portals()

    assert found.verdict is Verdict.WARN
    assert found.measured == {"active": 2, "failing": ["gone"]}
    assert Portal.objects.get(name="lab").health == PortalHealth.OK
    assert Portal.objects.get(name="gone").health == PortalHealth.FAILING


def test_the_machine_check_names_this_machine_and_warns_of_portals_without_workers(db, settings):
    settings.KETTER_MACHINE = "web-1"
    machine_seen(name="lab-1")
    PortalFactory(name="lab", machine="lab-1")
    PortalFactory(name="srvtrf", kind="ssh", host="srvtrf")

    found = places.machine()

    assert (found.verdict, found.value) == (Verdict.PASS, "web-1, with workers: lab-1")

    PortalFactory(name="gone", machine="lab-2")
    found = places.machine()

    assert (found.verdict, found.measured["waiting"]) == (Verdict.WARN, 1)
    (sentence,) = found.details
    assert "Portal “gone” is on machine “lab-2”, where no worker is alive." in sentence


def test_the_checks_of_disks_and_portals_leave_folders_of_another_machine_alone(
    transactional_db, tmp_path
):
    PortalFactory(name="lab", machine="lab-2", root_path=str(tmp_path))

    assert [look["name"] for look in places.disk().measured["folders"]] == ["var"]
    found = places.portals()

    assert found.verdict is Verdict.PASS
    assert found.details == (f"lab (local {tmp_path}): not tested here, it is on machine lab-2",)
    assert Portal.objects.get().checked_at is None


def test_redacted_hides_secrets_in_nested_values(settings):
    settings.SECRET_KEY = STRONG
    settings.REDIS_URL = "redis://:with%20blank@localhost/0"
    told = {"a": [f"key {STRONG}!", {"b": "with blank, with%20blank"}], "n": 1, "x": None}

    assert redacted(told) == {
        "a": [f"key {HIDDEN}!", {"b": f"{HIDDEN}, {HIDDEN}"}],
        "n": 1,
        "x": None,
    }


def test_a_finding_is_one_printable_line_for_each_of_its_texts():
    """Who can write to Redis chooses the names of workers; a host chooses its errors."""
    said = "\x1b[2Jidle\r\nPASS  all is well\u202e"
    finding = Finding(Verdict.WARN, said, said, said, (said, said), name="workers")

    text = finding_text(finding)

    assert len(text.splitlines()) == 5
    assert all(line.isprintable() for line in text.splitlines())
    assert not any(line.startswith("PASS") for line in text.splitlines())
