"""Secrets at rest: many keys open, the first one closes, and nothing fails quietly."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from portals import crypto
from portals.errors import CannotDecrypt, SecretOfAnotherRow
from portals.models import Credential
from portals.services import (
    credential_create,
    credentials_rotate,
    credentials_unbound,
    credentials_unusable,
)
from tests.portals.helpers import SECRET

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_encrypt_hides_the_secret_and_decrypt_restores_it(settings) -> None:
    settings.FIELD_KEYS = [OLD]
    token = crypto.encrypt(SECRET, of="a row")
    assert SECRET not in token
    assert crypto.decrypt(token, of="a row") == SECRET


def test_decrypt_accepts_any_listed_key_and_refuses_a_token_of_a_removed_key(settings) -> None:
    settings.FIELD_KEYS = [OLD]
    token = crypto.encrypt(SECRET, of="a row")
    settings.FIELD_KEYS = [NEW, OLD]
    assert crypto.decrypt(token, of="a row") == SECRET
    settings.FIELD_KEYS = [NEW]
    with pytest.raises(CannotDecrypt, match="none of the keys in KETTER_FIELD_KEYS"):
        crypto.decrypt(token, of="a row")


@pytest.mark.parametrize("token", ["", "gAAAAA", "plain text"])
def test_decrypt_refuses_text_that_is_not_a_token(token: str) -> None:
    with pytest.raises(CannotDecrypt):
        crypto.decrypt(token, of="a row")


@pytest.mark.parametrize("keys", [[], [""], ["too-short"], [OLD, "ä"]])
def test_encrypt_names_ketter_field_keys_when_a_key_is_missing_or_invalid(
    settings, keys: list[str]
) -> None:
    settings.FIELD_KEYS = keys
    with pytest.raises(ImproperlyConfigured, match="KETTER_FIELD_KEYS"):
        crypto.encrypt(SECRET, of="a row")


def test_a_credential_refuses_an_unencrypted_secret_without_repeating_it(db) -> None:
    with pytest.raises(ValueError, match=r"portals\.crypto\.encrypt") as caught:
        Credential.objects.create(name="a", kind="password", secret=SECRET)
    assert SECRET not in str(caught.value)


def test_rotate_credentials_encrypts_every_secret_with_the_first_key(db, settings, capsys) -> None:
    settings.FIELD_KEYS = [OLD]
    credential = credential_create(name="a", kind="password", secret=SECRET)
    credential_create(name="b", kind="agent")
    settings.FIELD_KEYS = [NEW, OLD]
    call_command("rotate_credentials")
    assert capsys.readouterr().out.startswith("1 secrets")
    settings.FIELD_KEYS = [NEW]
    credential.refresh_from_db()
    assert crypto.decrypt(credential.secret, of=credential.row) == SECRET


def test_rotate_credentials_changes_nothing_when_one_secret_cannot_be_decrypted(
    db, settings
) -> None:
    settings.FIELD_KEYS = [OLD]
    lost = credential_create(name="lost", kind="password", secret=SECRET)
    settings.FIELD_KEYS = [NEW]
    kept = credential_create(name="kept", kind="password", secret=SECRET)
    assert [row for row, _error in credentials_unusable()] == [lost]
    settings.FIELD_KEYS = [Fernet.generate_key().decode(), NEW]
    with pytest.raises(CannotDecrypt, match=r"Nothing was rotated.* lost"):
        credentials_rotate()
    with pytest.raises(CommandError, match="lost"):
        call_command("rotate_credentials")
    assert Credential.objects.get(name="kept").secret == kept.secret


def older(secret: str) -> str:
    """A token of a Ketter that did not name the row in it."""
    return Fernet(settings.FIELD_KEYS[0]).encrypt(secret.encode()).decode()


def test_a_token_copied_to_another_row_is_refused(db) -> None:
    theirs = credential_create(name="theirs", kind="password", secret=SECRET)
    ours = credential_create(name="ours", kind="password", secret="another")

    Credential.objects.filter(pk=ours.pk).update(secret=theirs.secret)

    ours.refresh_from_db()
    with pytest.raises(SecretOfAnotherRow, match="made for another row") as caught:
        crypto.decrypt(ours.secret, of=ours.row)
    assert SECRET not in str(caught.value)
    assert [row for row, _error in credentials_unusable()] == [ours]
    with pytest.raises(CannotDecrypt, match=r"Nothing was rotated.* ours"):
        credentials_rotate()


def test_a_token_is_refused_in_its_row_if_the_kind_was_changed(db) -> None:
    row = credential_create(name="a", kind="password", secret=SECRET)
    Credential.objects.filter(pk=row.pk).update(kind="private_key")
    row.refresh_from_db()
    with pytest.raises(SecretOfAnotherRow):
        crypto.decrypt(row.secret, of=row.row)


def test_rotate_credentials_binds_the_secrets_of_an_older_version_to_their_rows(db, capsys) -> None:
    credential_create(name="bound", kind="password", secret=SECRET)
    row = credential_create(name="a", kind="password", secret=SECRET)
    assert credentials_unbound() == []
    Credential.objects.filter(pk=row.pk).update(secret=older(SECRET))
    row.refresh_from_db()
    assert crypto.decrypt(row.secret, of=row.row) == SECRET
    assert credentials_unbound() == [row]

    call_command("rotate_credentials")

    row.refresh_from_db()
    assert credentials_unbound() == []
    assert crypto.decrypt(row.secret, of=row.row) == SECRET
    said = capsys.readouterr().out
    assert "named no row of the database before, and now do: a." in said
    call_command("rotate_credentials")
    assert "named no row" not in capsys.readouterr().out


def test_a_secret_of_an_old_backup_opens_nowhere_once_its_key_is_gone(db, settings) -> None:
    settings.FIELD_KEYS = [OLD]
    of_a_backup = older(SECRET)
    mine = credential_create(name="mine", kind="password", secret="another")
    settings.FIELD_KEYS = [NEW, OLD]
    call_command("rotate_credentials")
    settings.FIELD_KEYS = [NEW]

    Credential.objects.filter(pk=mine.pk).update(secret=of_a_backup)

    mine.refresh_from_db()
    with pytest.raises(CannotDecrypt):
        crypto.decrypt(mine.secret, of=mine.row)
