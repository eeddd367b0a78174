"""All writes to portals and credentials."""

from __future__ import annotations

import logging
from typing import Any, TypedDict, Unpack

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from engine.errors import HostKeyChanged
from portals.crypto import can_decrypt, encrypt, rotate
from portals.errors import CannotDecrypt, CredentialInUse, PortalChanged, PortalInUse
from portals.findings import Finding, portal_look
from portals.host_keys import host_key_parse
from portals.models import (
    SECRET_KINDS,
    Credential,
    CredentialKind,
    Portal,
    PortalHealth,
    PortalKind,
    PortalState,
)
from portals.validators import password_clean, private_key_clean

log = logging.getLogger(__name__)

#: A pinned key is the key of one address.
ADDRESS = ("kind", "host", "port")
#: A finding is about all of these; a change of any makes it stale.
REACH = (*ADDRESS, "username", "root_path", "credential_id", "host_key")
NO_SECRET = gettext_lazy("This kind of credential holds no secret here; leave it empty.")


class PortalChanges(TypedDict, total=False):
    """What can be changed of a portal."""

    name: str
    kind: str
    host: str
    port: int
    username: str
    root_path: str
    credential: Credential | None
    host_key: str
    max_streams: int
    max_jobs: int
    bandwidth_limit: int
    state: str


def portal_create(
    *,
    name: str,
    kind: str,
    root_path: str,
    host: str = "",
    port: int = 22,
    username: str = "",
    credential: Credential | None = None,
    host_key: str = "",
    max_streams: int = 4,
    max_jobs: int = 0,
    bandwidth_limit: int = 0,
    state: str = PortalState.ACTIVE,
) -> Portal:
    """Register a portal; nothing is connected to yet."""
    portal = Portal(
        name=name,
        kind=kind,
        root_path=root_path,
        host=host,
        port=port,
        username=username,
        credential=credential,
        host_key=host_key,
        max_streams=max_streams,
        max_jobs=max_jobs,
        bandwidth_limit=bandwidth_limit,
        state=state,
    )
    portal.full_clean()
    portal.save()
    return portal


@transaction.atomic
def portal_update(portal: Portal, **changes: Unpack[PortalChanges]) -> Portal:
    """Change a portal; what was found or pinned about its old self is forgotten.

    A new address drops the pinned key (unless a new one comes along), and any
    change of how the portal is reached drops the finding of the last test.
    """
    portal.refresh_from_db(from_queryset=Portal.objects.select_for_update())
    before = {name: getattr(portal, name) for name in REACH}
    for name, value in changes.items():
        setattr(portal, name, value)
    if "host_key" not in changes and any(getattr(portal, n) != before[n] for n in ADDRESS):
        portal.host_key = ""
    portal.full_clean()
    if any(getattr(portal, name) != before[name] for name in REACH):
        for name, value in _not_tested().items():
            setattr(portal, name, value)
    portal.save()
    return portal


def portal_test(portal: Portal) -> Finding:
    """Connect to the portal, store what was found there, and tell it.

    The row is read afresh, then left alone while the network takes its time; a
    finding about a portal that was edited meanwhile is not stored. Whoever
    holds a transaction open is refused (`durable`).
    """
    with transaction.atomic(durable=True):
        portal.refresh_from_db()
    finding = portal_look(portal)
    stored = Portal.objects.filter(pk=portal.pk, updated_at=portal.updated_at).update(
        health=finding.health,
        health_message=finding.message,
        capabilities=finding.probe._asdict() if finding.probe else {},
        checked_at=timezone.now(),
    )
    if not stored:
        raise PortalChanged(
            _("The portal “%s” was changed while it was tested; test it again.") % portal.name
        )
    portal.refresh_from_db()
    return finding


def portal_mark(portal: Portal, *, code: str, message: str) -> None:
    """Keep what a job met at a portal that needs a person, where operators look for it."""
    changed = code == HostKeyChanged.code
    Portal.objects.filter(pk=portal.pk).update(
        health=PortalHealth.HOST_KEY_CHANGED if changed else PortalHealth.FAILING,
        health_message=message,
        checked_at=timezone.now(),
    )


def portal_pin_host_key(portal: Portal, *, line: str) -> Portal:
    """Trust this key, and no other, to be the portal's host; a person compared it."""
    key = host_key_parse(line)
    if portal.kind != PortalKind.SSH:
        raise ValidationError({"host_key": _("A portal on this machine has no host key.")})
    portal_update(portal, host_key=key.line)
    log.info("portal %s: pinned host key %s", portal.name, key.fingerprint)
    return portal


def portal_delete(portal: Portal) -> None:
    """Remove a portal that no job refers to."""
    try:
        portal.delete()
    except ProtectedError:
        raise PortalInUse(
            _("The portal “%s” is named by jobs, so it cannot be deleted; disable it instead.")
            % portal.name
        ) from None


@sensitive_variables("secret", "clean")
def credential_create(*, name: str, kind: str, secret: str = "", key_path: str = "") -> Credential:
    """Register a credential; its secret is encrypted here and shown nowhere."""
    credential = Credential(name=name, kind=kind, key_path=key_path)
    credential.full_clean(exclude=["secret"])
    clean = secret_clean(kind, secret)
    credential.secret = encrypt(clean) if clean else ""
    credential.save()
    return credential


@sensitive_variables("secret")
@transaction.atomic
def credential_update(
    credential: Credential,
    *,
    name: str | None = None,
    key_path: str | None = None,
    secret: str = "",
) -> Credential:
    """Change what is given; an empty secret keeps the stored one, and the kind stays."""
    credential.refresh_from_db(from_queryset=Credential.objects.select_for_update())
    credential.name = credential.name if name is None else name
    moved = key_path is not None and key_path != credential.key_path
    credential.key_path = credential.key_path if key_path is None else key_path
    credential.full_clean()
    credential.save()
    if moved:
        _portals_forget(credential)
    return credential_set_secret(credential, secret=secret) if secret else credential


@sensitive_variables("secret")
@transaction.atomic
def credential_set_secret(credential: Credential, *, secret: str) -> Credential:
    """Replace the secret; the portals that use it wait for a new test."""
    credential.refresh_from_db(from_queryset=Credential.objects.select_for_update())
    if credential.kind not in SECRET_KINDS:
        raise ValidationError({"secret": NO_SECRET})
    credential.secret = encrypt(secret_clean(credential.kind, secret))
    credential.save()
    _portals_forget(credential)
    return credential


def _portals_forget(credential: Credential) -> None:
    # The new `updated_at` also voids the finding of a test that runs right now.
    credential.portals.update(**_not_tested(), updated_at=timezone.now())


def _not_tested() -> dict[str, Any]:
    """The finding of a portal that was not tested since it was made or changed."""
    return {
        "health": PortalHealth.UNKNOWN,
        "health_message": "",
        "capabilities": {},
        "checked_at": None,
    }


def credential_delete(credential: Credential) -> None:
    """Remove a credential that no portal uses."""
    try:
        credential.delete()
    except ProtectedError:
        raise CredentialInUse(
            _("The credential “%s” is used by portals, so it cannot be deleted.") % credential.name
        ) from None


@sensitive_variables("secret")
def secret_clean(kind: str, secret: str) -> str:
    """The secret as it will be stored, or a ValidationError that does not repeat it."""
    try:
        if kind == CredentialKind.PASSWORD:
            return password_clean(secret)
        if kind == CredentialKind.PRIVATE_KEY:
            return private_key_clean(secret)
    except ValidationError as error:
        raise ValidationError({"secret": error.messages}) from None
    if secret:
        raise ValidationError({"secret": NO_SECRET})
    return ""


@transaction.atomic
def credentials_rotate() -> int:
    """Encrypt every secret anew with the first key, all or none; says how many.

    One that no key opens stops the whole rotation, because the old key must
    not be taken out of the list before it is dealt with.
    """
    rows = list(Credential.objects.exclude(secret="").select_for_update())
    if lost := [credential.name for credential in rows if not can_decrypt(credential.secret)]:
        raise CannotDecrypt(
            _("Nothing was rotated: no key in KETTER_FIELD_KEYS opens the secret of %s.")
            % ", ".join(lost)
        )
    for credential in rows:
        Credential.objects.filter(pk=credential.pk).update(secret=rotate(credential.secret))
    return len(rows)


def credentials_undecryptable() -> list[Credential]:
    """The credentials whose secret no key of this installation opens."""
    rows = Credential.objects.exclude(secret="")
    return [credential for credential in rows if not can_decrypt(credential.secret)]
