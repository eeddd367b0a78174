"""The admin's side bar, the queue's pages, and the models of other packages in the same skin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.urls import URLPattern
from django.utils.translation import gettext_lazy as _
from django_rq.admin import QueueAdmin as StockQueueAdmin
from django_rq.models import Dashboard
from knox.admin import AuthTokenAdmin as StockTokenAdmin
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from ketter_site.queue_pages import for_superusers, is_of_queue, is_superuser

#: The side bar: heading -> (admin model, Material symbol); what operators use most comes first.
_SIDEBAR = {
    _("Transfers"): (
        ("jobs_job", "sync_alt"),
        ("portals_portal", "dns"),
        ("portals_credential", "key"),
    ),
    _("Access"): (("auth_user", "person"), ("auth_group", "group"), ("knox_authtoken", "token")),
    _("System"): (("django_rq_dashboard", "queue"),),
}

for model in (User, Group, AuthToken, Dashboard):
    admin.site.unregister(model)


@admin.register(User)
class UserAdmin(StockUserAdmin, ModelAdmin):
    """People and machines that may sign in."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(StockGroupAdmin, ModelAdmin):
    """Permissions that several users share; `operators` and `viewers` come with Ketter."""


@admin.register(AuthToken)
class TokenAdmin(StockTokenAdmin, ModelAdmin):
    """API tokens; the admin shows a new one once, in the message after it is made."""

    list_display = ("user", "token_key", "created", "expiry")


@admin.register(Dashboard)
class QueueAdmin(StockQueueAdmin):
    """The queue's pages, for superusers only: the buttons there can stop transfers."""

    def get_urls(self) -> list[URLPattern]:
        """All of django-rq's addresses, each for superusers only."""
        return [for_superusers(pattern) for pattern in super().get_urls() if is_of_queue(pattern)]

    def has_module_permission(self, request: HttpRequest) -> bool:
        """True if the side bar and the index show the queue."""
        return is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """True if the index links to the queue."""
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """True for superusers, as for viewing; the pages have nothing to change."""
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False: the pages show entries of Redis, which has no rows to delete."""
        return False


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The side bar's groups, with only the pages that this user may open."""
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
