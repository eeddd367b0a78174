"""The groups that exist after migrate."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.apps.registry import Apps
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command

from portals.groups import group_grant, portals_granted

VIEW = {"view_portal", "view_credential"}


def codenames(group: str) -> set[str]:
    """What a group may do in this app."""
    rows = Permission.objects.filter(group__name=group, content_type__app_label="portals")
    return set(rows.values_list("codename", flat=True))


def test_migrate_creates_viewers_and_operators_with_their_permissions(db) -> None:
    assert codenames("viewers") == VIEW
    assert codenames("operators") == VIEW | {"test_portal"}


def test_portals_granted_creates_the_groups_when_no_permission_exists_yet(db) -> None:
    """As in the first migrate, where Django makes the permissions after our receiver ran."""
    Group.objects.all().delete()
    Permission.objects.all().delete()
    portals_granted(using="default", apps=apps)
    assert codenames("operators") == VIEW | {"test_portal"}


def test_a_second_migrate_keeps_a_permission_added_by_hand(db) -> None:
    extra = Permission.objects.get(codename="add_portal")
    Group.objects.get(name="viewers").permissions.add(extra)
    call_command("migrate", verbosity=0)
    assert codenames("viewers") == VIEW | {"add_portal"}
    assert Group.objects.filter(name="viewers").count() == 1


def test_group_grant_creates_no_group_while_apps_are_not_migrated_yet(db) -> None:
    group_grant("early", ["portals.view_portal"], apps=Apps())
    assert not Group.objects.filter(name="early").exists()


def test_group_grant_refuses_an_unknown_permission(db) -> None:
    with pytest.raises(LookupError, match=r"portals\.fly"):
        group_grant("viewers", ["portals.fly"])
