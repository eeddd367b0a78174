"""Secrets at rest: many keys open, the first one closes, and nothing fails quietly."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from portals import crypto
from portals.errors import CannotDecrypt
from portals.models import Credential
from portals.services import credential_create, credentials_rotate, credentials_undecryptable
from tests.portals.conftest import SECRET

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_it_opens_what_it_closed_and_the_token_shows_nothing(settings) -> None:
    settings.FIELD_KEYS = [OLD]
    token = crypto.encrypt(SECRET)
    assert SECRET not in token
    assert crypto.decrypt(token) == SECRET


def test_it_opens_with_any_key_and_closes_with_the_first(settings) -> None:
    settings.FIELD_KEYS = [OLD]
    token = crypto.encrypt(SECRET)
    settings.FIELD_KEYS = [NEW, OLD]
    assert crypto.decrypt(token) == SECRET
    settings.FIELD_KEYS = [NEW]
    with pytest.raises(CannotDecrypt, match="none of the keys in KETTER_FIELD_KEYS"):
        crypto.decrypt(token)


@pytest.mark.parametrize("token", ["", "gAAAAA", "plain text"])
def test_it_refuses_what_is_no_token(token: str) -> None:
    with pytest.raises(CannotDecrypt):
        crypto.decrypt(token)


@pytest.mark.parametrize("keys", [[], [""], ["too-short"], [OLD, "ä"]])
def test_it_names_the_variable_when_a_key_is_none(settings, keys: list[str]) -> None:
    settings.FIELD_KEYS = keys
    with pytest.raises(ImproperlyConfigured, match="KETTER_FIELD_KEYS"):
        crypto.encrypt(SECRET)


def test_it_does_not_store_plain_text_and_does_not_repeat_it(db) -> None:
    with pytest.raises(ValueError, match=r"portals\.crypto\.encrypt") as caught:
        Credential.objects.create(name="a", kind="password", secret=SECRET)
    assert SECRET not in str(caught.value)


def test_it_rotates_every_secret_to_the_first_key(db, settings, capsys) -> None:
    settings.FIELD_KEYS = [OLD]
    credential = credential_create(name="a", kind="password", secret=SECRET)
    credential_create(name="b", kind="agent")
    settings.FIELD_KEYS = [NEW, OLD]
    call_command("rotate_credentials")
    assert capsys.readouterr().out.startswith("1 secrets")
    settings.FIELD_KEYS = [NEW]
    credential.refresh_from_db()
    assert crypto.decrypt(credential.secret) == SECRET


def test_it_rotates_nothing_when_one_secret_is_lost(db, settings) -> None:
    settings.FIELD_KEYS = [OLD]
    lost = credential_create(name="lost", kind="password", secret=SECRET)
    settings.FIELD_KEYS = [NEW]
    kept = credential_create(name="kept", kind="password", secret=SECRET)
    assert credentials_undecryptable() == [lost]
    settings.FIELD_KEYS = [Fernet.generate_key().decode(), NEW]
    with pytest.raises(CannotDecrypt, match=r"Nothing was rotated.* lost"):
        credentials_rotate()
    with pytest.raises(CommandError, match="lost"):
        call_command("rotate_credentials")
    assert Credential.objects.get(name="kept").secret == kept.secret
