"""Users, groups and tokens in the admin's skin: their own pages know nothing of it."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group, User
from knox.admin import AuthTokenAdmin as StockTokenAdmin
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

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
