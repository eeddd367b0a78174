"""The admin as a whole: its side bar, and users, groups and tokens in its skin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from knox.admin import AuthTokenAdmin as StockTokenAdmin
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

#: The side bar: heading -> (admin model, Material symbol); what an operator needs stands first.
_SIDEBAR = {
    _("Transfers"): (
        ("jobs_job", "sync_alt"),
        ("portals_portal", "dns"),
        ("portals_credential", "key"),
    ),
    _("Access"): (("auth_user", "person"), ("auth_group", "group"), ("knox_authtoken", "token")),
    _("System"): (("django_rq_dashboard", "queue"),),
}

for model in (User, Group, AuthToken):
    admin.site.unregister(model)


@admin.register(User)
class UserAdmin(StockUserAdmin, ModelAdmin):
    """People and machines that may sign in."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(StockGroupAdmin, ModelAdmin):
    """What several users may do; `operators` and `viewers` come with Ketter."""


@admin.register(AuthToken)
class TokenAdmin(StockTokenAdmin, ModelAdmin):
    """API tokens; a new one is shown once, in the message after it was made."""

    list_display = ("user", "token_key", "created", "expiry")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The side bar's groups for this user: only what they may open."""
    shown = {
        f"{app['app_label']}_{model['object_name'].lower()}": model
        for app in admin.site.get_app_list(request)
        for model in app["models"]
        if model["admin_url"]
    }
    groups = []
    for title, entries in _SIDEBAR.items():
        items = [
            {"title": shown[name]["name"], "icon": icon, "link": shown[name]["admin_url"]}
            for name, icon in entries
            if name in shown
        ]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups
