"""The pages of users, groups and tokens, which other packages bring, in Ketter's skin."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from knox.models import AuthToken
from unfold.admin import ModelAdmin

from ketter_site.admin import navigation


@pytest.mark.parametrize("model", [User, Group, AuthToken])
def test_the_admin_shows_users_groups_and_tokens_in_the_theme_of_ketter(
    alice, client: Client, model
) -> None:
    assert isinstance(admin.site.get_model_admin(model), ModelAdmin)
    client.force_login(alice)
    url = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    assert client.get(url).status_code == 200
    assert client.get(f"{url}add/").status_code == 200


def test_the_admin_shows_a_new_token_only_once(alice, client: Client) -> None:
    client.force_login(alice)
    form = {"user": alice.pk, "expiry_0": "", "expiry_1": ""}
    url = "/admin/knox/authtoken/"
    page = client.post(f"{url}add/", form, follow=True).content.decode()
    token = page.split("TOKEN ")[1].split()[0]
    assert (
        client.get("/api/portals/", headers={"Authorization": f"Token {token}"}).status_code == 200
    )
    assert token not in client.get(url).content.decode()


def test_the_side_bar_shows_each_user_only_the_pages_they_may_open(alice, vera, rf) -> None:
    def titles(user: User) -> list[list[str]]:
        request = rf.get("/admin/")
        request.user = user
        return [[str(item["title"]) for item in group["items"]] for group in navigation(request)]

    assert titles(vera) == [["Jobs", "Portals", "Credentials"]]
    assert titles(alice)[0] == ["Jobs", "Portals", "Credentials"]
    assert titles(alice)[1:] == [["Users", "Groups", "Auth tokens"], ["Django-RQ"]]
