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

from engine import Probe, display_path
from engine.errors import HostKeyChanged
from portals.crypto import check, encrypt, is_bound, rotate
from portals.errors import (
    CannotDecrypt,
    CredentialInUse,
    OtherMachine,
    PortalChanged,
    PortalInUse,
)
from portals.findings import Finding, portal_look, root_moved
from portals.host_keys import host_key_parse
from portals.kinds import KINDS, PortalKind
from portals.machines import (
    former_after_edit,
    machine_for_new_portal,
    machine_now,
    machine_stamp,
)
from portals.models import (
    SECRET_KINDS,
    Credential,
    CredentialKind,
    Portal,
    PortalHealth,
    PortalState,
)
from portals.roots import MOST_SHOWN, ROOT, kept, real_path, shown
from portals.validators import password_clean, private_key_clean

log = logging.getLogger(__name__)

#: A pinned key is the key of one address.
ADDRESS = ("kind", "host", "port")
#: The fields that a test result is about; a change of any makes it stale.
REACH = (*ADDRESS, "username", "machine", "root_path", "credential_id", "host_key")
NO_SECRET = gettext_lazy("Ketter stores no secret for this kind of credential; leave it empty.")


class PortalChanges(TypedDict, total=False):
    """The fields of a portal that can be changed."""

    name: str
    kind: str
    host: str
    port: int
    username: str
    machine: str
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
    machine: str = "",
    credential: Credential | None = None,
    host_key: str = "",
    max_streams: int = 4,
    max_jobs: int = 0,
    bandwidth_limit: int = 0,
    state: str = PortalState.ACTIVE,
) -> Portal:
    """Register a portal, without connecting to it.

    A portal of the kind *this machine* without a machine gets the one that has workers, or this
    one if there are several or none.
    """
    if kind == PortalKind.LOCAL and not machine:
        machine = machine_for_new_portal()
    portal = Portal(
        name=name,
        kind=kind,
        root_path=root_path,
        host=host,
        port=port,
        username=username,
        machine=machine,
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
    """Change a portal, and clear what was found or pinned about its old fields.

    A new address clears the pinned key (unless the changes bring a new one). Another root or
    machine clears the recorded real path. Any change of a field in REACH clears the last test
    result. A portal that becomes one of the kind *this machine* gets a machine as a new one does.
    """
    portal.refresh_from_db(from_queryset=Portal.objects.select_for_update())
    before = {name: getattr(portal, name) for name in REACH}
    for name, value in changes.items():
        setattr(portal, name, value)
    if "host_key" not in changes and any(getattr(portal, n) != before[n] for n in ADDRESS):
        portal.host_key = ""
    if portal.kind != PortalKind.LOCAL and "machine" not in changes:
        portal.machine = ""
    elif portal.kind == PortalKind.LOCAL and not portal.machine:
        portal.machine = machine_for_new_portal()
    if portal.machine != before["machine"]:
        portal.former_machines = former_after_edit(portal, before["machine"])
    portal.full_clean()
    if any(getattr(portal, name) != before[name] for name in (*ROOT, "machine")):
        portal.real_root, portal.root_confirmed_at = "", None
    if any(getattr(portal, name) != before[name] for name in REACH):
        for name, value in _not_tested().items():
            setattr(portal, name, value)
    portal.save()
    return portal


def portal_test(portal: Portal) -> Finding:
    """Connect to the portal, store the result, and return it.

    The row is read again first, and not locked while the network takes its time. Raises
    PortalChanged, and stores nothing, if the portal is edited meanwhile. Stores nothing either
    about a folder of another machine, which cannot be tested here. Raises RuntimeError if the
    caller holds a transaction open (`durable`).
    """
    with transaction.atomic(durable=True):
        portal.refresh_from_db()
    finding = portal_look(portal)
    if finding.code == OtherMachine.code:
        return finding
    if finding.probe and finding.health == PortalHealth.OK:
        found = kept(finding.probe.realpath)
        recorded = portal_record_root(portal, real_root=found, root=root_of(portal))
        if recorded not in ("", found):  # A job recorded another one first.
            finding = root_moved(portal, recorded, found, finding.probe)
    stored = Portal.objects.filter(pk=portal.pk, updated_at=portal.updated_at).update(
        health=finding.health,
        health_message=finding.message,
        capabilities=_showable(finding.probe) if finding.probe else {},
        checked_at=timezone.now(),
    )
    if not stored:
        raise PortalChanged(
            _("The portal “%s” was changed while it was tested; test it again.") % portal.name
        )
    portal.refresh_from_db()
    return finding


def portal_mark(portal: Portal, *, code: str, message: str) -> None:
    """Store on the portal, where operators see it, a job's error that needs a person."""
    changed = code == HostKeyChanged.code
    Portal.objects.filter(pk=portal.pk).update(
        health=PortalHealth.HOST_KEY_CHANGED if changed else PortalHealth.FAILING,
        health_message=message,
        checked_at=timezone.now(),
    )


def portal_pin_host_key(portal: Portal, *, line: str) -> Portal:
    """Trust this key, and no other, as the key of the portal's host; a person compared it."""
    key = host_key_parse(line)
    if not KINDS[portal.kind].has_host_key:
        raise ValidationError({"host_key": _("A portal on this machine has no host key.")})
    portal_update(portal, host_key=key.line)
    log.info("portal %s: pinned host key %s", portal.name, key.fingerprint)
    return portal


def root_of(portal: Portal) -> dict[str, Any]:
    """The fields that identify a portal's root; see `portal_record_root`."""
    return {name: getattr(portal, name) for name in ROOT} | machine_stamp(portal)


def portal_record_root(portal: Portal, *, real_root: str, root: dict[str, Any]) -> str:
    """Record a root's real path if none is recorded; return the recorded one, see `roots`.

    `root` identifies the root. If the portal has been edited meanwhile, this function
    records nothing and returns the empty text.
    """
    present = Portal.objects.filter(pk=portal.pk).first()
    machine = machine_now(present, root) if present else ""
    fields = {name: root[name] for name in ROOT} | {"machine": machine}
    rows = Portal.objects.filter(pk=portal.pk, **fields)
    if rows.filter(real_root="").update(real_root=real_root):
        log.info("portal %s: its root is %s", portal.name, shown(real_root))
    return rows.values_list("real_root", flat=True).first() or ""


def portal_confirm_root(portal: Portal, *, real_root: str) -> Portal:
    """Record this folder, and no other, as the portal's root; a person says that it is right.

    Raises ValidationError if `real_root` is no absolute path.
    """
    try:
        real_path(real_root)
    except ValueError:
        real_root = ""
    if not real_root:
        raise ValidationError({"real_root": _("Enter the absolute path that the test found.")})
    with transaction.atomic():
        portal.refresh_from_db(from_queryset=Portal.objects.select_for_update())
        portal.real_root, portal.root_confirmed_at = real_root, timezone.now()
        for name, value in _not_tested().items():
            setattr(portal, name, value)
        portal.save()
    log.info("portal %s: confirmed that its root is %s", portal.name, shown(real_root))
    return portal


def _showable(probe: Probe) -> dict[str, Any]:
    """The result of a probe as the database can hold it: a host's names may be any bytes."""
    seen = {**probe._asdict(), "exposed": list(map(display_path, probe.exposed))}
    for name, value in seen.items():
        if isinstance(value, str):
            seen[name] = display_path(value)[:MOST_SHOWN]
    return seen


def portal_delete(portal: Portal) -> None:
    """Remove a portal. Raises PortalInUse if a job refers to it."""
    try:
        portal.delete()
    except ProtectedError:
        raise PortalInUse(
            _("Jobs refer to the portal “%s”, so it cannot be deleted; disable it instead.")
            % portal.name
        ) from None


@sensitive_variables("secret", "clean")
@transaction.atomic
def credential_create(*, name: str, kind: str, secret: str = "", key_path: str = "") -> Credential:
    """Register a credential; its secret is encrypted here and shown nowhere."""
    credential = Credential(name=name, kind=kind, key_path=key_path)
    credential.full_clean(exclude=["secret"])
    clean = secret_clean(kind, secret)
    credential.secret = encrypt(clean, of="") if clean else ""
    credential.save()
    if clean:  # Only a saved row has the number that its token names.
        credential.secret = encrypt(clean, of=credential.row)
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
    """Change the given fields; an empty secret keeps the stored one, and the kind stays."""
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
    """Replace the secret, and clear the test results of the portals that use it."""
    credential.refresh_from_db(from_queryset=Credential.objects.select_for_update())
    if credential.kind not in SECRET_KINDS:
        raise ValidationError({"secret": NO_SECRET})
    credential.secret = encrypt(secret_clean(credential.kind, secret), of=credential.row)
    credential.save()
    _portals_forget(credential)
    return credential


def _portals_forget(credential: Credential) -> None:
    # The new `updated_at` also voids the result of a test that runs right now.
    credential.portals.update(**_not_tested(), updated_at=timezone.now())


def _not_tested() -> dict[str, Any]:
    """The fields of a test result, for a portal not tested since it was made or changed."""
    return {
        "health": PortalHealth.UNKNOWN,
        "health_message": "",
        "capabilities": {},
        "checked_at": None,
    }


def credential_delete(credential: Credential) -> None:
    """Remove a credential. Raises CredentialInUse if a portal uses it."""
    try:
        credential.delete()
    except ProtectedError:
        raise CredentialInUse(
            _(
                "Portals use the credential “%s”, so it cannot be deleted; give them another "
                "credential first."
            )
            % credential.name
        ) from None


@sensitive_variables("secret")
def secret_clean(kind: str, secret: str) -> str:
    """The secret as Ketter stores it. Raises ValidationError, which does not repeat it."""
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
    """Encrypt every secret again with the first key, bound to its row; return how many.

    Raises CannotDecrypt, and changes nothing, if one of the secrets cannot be used: the old
    key must not be taken out of the list before that secret is repaired.
    """
    if lost := credentials_unusable():
        raise CannotDecrypt(
            _("Nothing was rotated. %s")
            % " ".join(f"{credential.name}: {error}" for credential, error in lost)
        )
    rows = list(Credential.objects.exclude(secret="").select_for_update())
    for credential in rows:
        token = rotate(credential.secret, of=credential.row)
        Credential.objects.filter(pk=credential.pk).update(secret=token)
    return len(rows)


def credentials_unusable() -> list[tuple[Credential, CannotDecrypt]]:
    """The credentials whose secret cannot be opened, or is another row's; with the error."""
    found = []
    for credential in Credential.objects.exclude(secret=""):
        try:
            check(credential.secret, of=credential.row)
        except CannotDecrypt as error:
            found.append((credential, error))
    return found


def credentials_unbound() -> list[Credential]:
    """The credentials whose secret an older Ketter encrypted: it would open in any row."""
    unusable = {credential.pk for credential, _error in credentials_unusable()}
    rows = Credential.objects.exclude(secret="").exclude(pk__in=unusable)
    return [credential for credential in rows if not is_bound(credential.secret)]
