"""An option of a transfer is declared in the engine; job, API, admin and command line follow."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from enum import StrEnum
from typing import Any, get_type_hints

import pytest
from django.contrib.auth.models import User
from django.db.models import BooleanField, CharField, Field, IntegerField
from rest_framework.test import APIClient

import engine
from engine.types import OPTIONS, OPTIONS_VERSION, Option, ParcelKind, ParcelState, Request
from jobs import choices, validation
from jobs.admin import JobAdmin
from jobs.api.serializers import JobOrderSerializer
from jobs.errors import InvalidJob
from jobs.models import Job
from jobs.options import JobOptions
from jobs.queueing import eligibility
from jobs.queueing.attempts import job_claim
from jobs.running.request import request_for
from jobs.services import job_create, job_relaunch
from jobs.states import Status
from tests.factories import PortalFactory

#: A value for each option that is not its default.
OTHER: dict[str, Any] = {
    "strategy": "zip",
    "verify": "readback",
    "on_conflict": "skip",
    "checksum": True,
    "symlinks": "skip",
    "hard_links": "keep",
    "xattrs": True,
    "special_bits": True,
    "preallocate": True,
    "streams": 3,
}
BY_NAME = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)


def column_of(option: Option) -> Field[Any, Any]:
    found = Job._meta.get_field(option.name)
    assert isinstance(found, Field)
    return found


@BY_NAME
def test_an_option_has_the_same_default_and_values_in_the_engine_and_the_job(
    option: Option,
) -> None:
    """If added after version 1, also in the database: an older web server does not name it."""
    assert Request._field_defaults[option.name] == option.default
    column = column_of(option)
    stored = column.get_default()
    assert option.value_of(stored) == option.default
    assert option.since == 1 or column.has_db_default()
    if issubclass(option.kind, StrEnum):
        assert isinstance(column, CharField)
        # Only an option without a default of its own may be empty.
        known = {str(value) for value in option.kind} | ({""} if option.default is None else set())
        assert set(choices.CHOICES[option.name].values) == known
    elif issubclass(option.kind, bool):
        assert isinstance(column, BooleanField)
    else:
        assert isinstance(column, IntegerField)


@BY_NAME
def test_an_option_is_a_field_of_the_api_the_admin_and_job_options(option: Option) -> None:
    assert option.name in JobOrderSerializer().fields
    shown = str([fields["fields"] for _, fields in JobAdmin.fieldsets])
    assert f"'{option.name}'" in shown
    assert option.name in get_type_hints(JobOptions)


def test_the_range_of_a_number_is_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a number that is declared only now: the module is run again, and not kept."""
    extra = Option("copies", int, 1, "how often", most=7)
    monkeypatch.setattr("engine.types.OPTIONS", (*OPTIONS, extra))
    ranges = runpy.run_path(validation.__file__)["RANGES"]
    numbers = {option.name: (0, option.most) for option in OPTIONS if option.kind is int}
    assert numbers == {"streams": (0, 32)}
    assert ranges.items() >= {**numbers, "copies": (0, 7)}.items()
    assert ranges.keys() - numbers == {"copies", "bandwidth_limit", "priority", "max_tries"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (choices.JobMode, engine.Mode),
        (choices.ParcelKind, ParcelKind),
        (choices.ParcelState, ParcelState),
    ],
)
def test_the_choices_of_a_job_have_the_same_values_as_the_engine(ours: Any, theirs: Any) -> None:
    assert list(ours.values) == [str(value) for value in theirs]


@pytest.fixture
def launch(db: None, oscar: User) -> Callable[..., Job]:
    def make(**options: Any) -> Job:
        portals: dict[str, Any] = {
            "source_portal": PortalFactory(root_path="/lab"),
            "target_portal": PortalFactory(root_path="/vault"),
            "target_path": f"job{Job.objects.count()}",
        }
        return job_create(by=oscar, **portals, **options)

    return make


@BY_NAME
def test_an_option_chosen_at_launch_reaches_the_engine_and_a_relaunch(
    option: Option, launch: Callable[..., Job], oscar: User
) -> None:
    job = launch(**{option.name: OTHER[option.name]})
    expected = option.kind(OTHER[option.name])

    job.refresh_from_db()
    assert getattr(request_for(job), option.name) == expected

    Job.objects.filter(pk=job.pk).update(status=Status.FAILED)
    job.refresh_from_db()
    assert getattr(job_relaunch(job, by=oscar), option.name) == OTHER[option.name]


@BY_NAME
def test_the_api_accepts_and_shows_an_option_and_refuses_a_wrong_value(
    option: Option, db: None, oscar: User, api: Callable[[User | None], APIClient]
) -> None:
    portals = {
        "source_portal": PortalFactory(root_path="/lab").name,
        "target_portal": PortalFactory(root_path="/vault").name,
    }

    made = api(oscar).post(
        "/api/jobs/", {**portals, option.name: OTHER[option.name]}, format="json"
    )

    assert made.status_code == 201, made.json()
    assert made.json()[option.name] == OTHER[option.name]
    wrong = "neither" if option.name in choices.CHOICES else "odd"
    refused = api(oscar).post("/api/jobs/", {**portals, option.name: wrong}, format="json")
    assert refused.status_code == 400
    assert option.name in str(refused.json())


def test_a_move_that_follows_links_is_refused(launch: Callable[..., Job]) -> None:
    with pytest.raises(InvalidJob) as caught:
        launch(mode="move", symlinks="follow")
    assert list(caught.value.problems) == ["symlinks"]
    assert launch(mode="copy", symlinks="follow").status == Status.QUEUED


# -- workers that do not know an option ---------------------------------------------


@BY_NAME
def test_a_job_requires_the_options_version_of_the_option_it_uses(
    option: Option, launch: Callable[..., Job]
) -> None:
    assert launch().options_version == 1
    assert launch(**{option.name: OTHER[option.name]}).options_version == option.since


def test_a_worker_claims_no_job_whose_options_it_does_not_know(
    launch: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This commit's worker, as if it were of one version of the options before."""
    newer, plain = launch(preallocate=True), launch()
    monkeypatch.setattr(eligibility, "OPTIONS_VERSION", OPTIONS_VERSION - 1)

    claimed = job_claim(worker="w1")

    assert claimed is not None
    assert claimed.pk == plain.pk
    assert job_claim(worker="w1") is None
    newer.refresh_from_db()
    assert "newer version" in newer.waits_for
    monkeypatch.undo()
    claimed = job_claim(worker="w2")
    assert claimed is not None
    assert claimed.pk == newer.pk
