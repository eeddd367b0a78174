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


def test_it_has_made_both_groups(db) -> None:
    assert codenames("viewers") == VIEW
    assert codenames("operators") == VIEW | {"test_portal"}


def test_it_makes_them_on_a_database_without_any_permission(db) -> None:
    """As in the first migrate, where Django makes the permissions after our receiver ran."""
    Group.objects.all().delete()
    Permission.objects.all().delete()
    portals_granted(using="default", apps=apps)
    assert codenames("operators") == VIEW | {"test_portal"}


def test_it_can_be_repeated_and_leaves_what_was_added_by_hand(db) -> None:
    extra = Permission.objects.get(codename="add_portal")
    Group.objects.get(name="viewers").permissions.add(extra)
    call_command("migrate", verbosity=0)
    assert codenames("viewers") == VIEW | {"add_portal"}
    assert Group.objects.filter(name="viewers").count() == 1


def test_it_waits_while_only_a_part_of_the_apps_is_migrated(db) -> None:
    group_grant("early", ["portals.view_portal"], apps=Apps())
    assert not Group.objects.filter(name="early").exists()


def test_it_does_not_pass_over_a_permission_that_is_none(db) -> None:
    with pytest.raises(LookupError, match=r"portals\.fly"):
        group_grant("viewers", ["portals.fly"])
