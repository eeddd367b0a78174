"""Rows for tests, with as little said as a test needs to say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import factory
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from factory.django import DjangoModelFactory

from jobs.models import Job
from portals.models import Portal


class UserFactory(DjangoModelFactory):
    """A user with the password `secret`; `groups=["operators"]` puts it in existing groups."""

    class Meta:
        model = get_user_model()
        skip_postgeneration_save = True

    username = factory.Sequence(lambda number: f"user{number}")
    password = factory.django.Password("secret")

    @factory.post_generation
    def groups(self, create: bool, names: Iterable[str] | None, **kwargs: Any) -> None:
        for name in names or ():
            self.groups.add(Group.objects.get(name=name))


class PortalFactory(DjangoModelFactory):
    """A portal on this machine; give it a `root_path` that exists."""

    class Meta:
        model = Portal

    name = factory.Sequence(lambda number: f"portal{number}")
    kind = "local"
    machine = factory.LazyAttribute(
        lambda portal: settings.KETTER_MACHINE if portal.kind == "local" else ""
    )
    root_path = "/nonexistent"


class JobFactory(DjangoModelFactory):
    """A queued job between two new portals, as a row: no event, no wake-up."""

    class Meta:
        model = Job

    source_portal = factory.SubFactory(PortalFactory)
    target_portal = factory.SubFactory(PortalFactory)
    source_path = "from"
    target_path = "to"
    requested_by = factory.SubFactory(UserFactory)


def with_database(url: str, name: str) -> str:
    """A database URL with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
