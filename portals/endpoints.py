"""Makes the engine's endpoint from a portal's row; the only module that decrypts secrets."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from engine.types import Endpoint, SshAccess
from portals.crypto import decrypt
from portals.errors import CannotDecrypt, HostKeyNotPinned, PortalDisabled, PortalMoved
from portals.kinds import PortalKind
from portals.machines import check_here, machine_now, machine_stamp
from portals.models import Credential, CredentialKind, Portal, PortalState
from portals.roots import ROOT, real_path, root_now, stamp


def endpoint_for(portal: Portal, path: str) -> Endpoint:
    """The endpoint of a path in a portal, for a job that runs now.

    Raises PortalDisabled if the portal is disabled, HostKeyNotPinned if it is behind SSH
    without a pinned host key, CannotDecrypt if no key opens its credential's secret,
    PortalMoved if that credential belongs to another address (see `thawed`), and OtherMachine
    if it is a folder of another machine.
    """
    if portal.state == PortalState.DISABLED:
        raise PortalDisabled(_("The portal “%s” is disabled.") % portal.name)
    return _endpoint(portal, path)


#: The fields that say where a portal is; a job that has begun keeps their values.
FROZEN = ROOT
_ADDRESS = ("kind", "host", "port")
#: The fields that belong to that address.
_THERE = ("username", "host_key")


def freeze(portal: Portal) -> dict[str, Any]:
    """Where a portal is at this moment, without any secret; the job stores it."""
    return {
        **{name: getattr(portal, name) for name in (*FROZEN, *_THERE)},
        "credential": _stamp(portal.credential),
        **machine_stamp(portal),
        "real_root": portal.real_root,
        "root_confirmed": stamp(portal),
    }


def _stamp(credential: Credential | None) -> str:
    """What changes with another credential, and with each change of one."""
    return f"{credential.pk} {credential.updated_at.isoformat()}" if credential else ""


def thawed(portal: Portal, frozen: dict[str, Any]) -> Portal:
    """A copy of the portal as it was when a job began, with its present credential.

    If the address is still the same, the present user name and pinned key count, so that
    a person can repair what a job waits for. A root that a person has confirmed since
    counts, too (see `root_now`), and a new name of its machine (see `machine_now`). If the
    address is another one and the credential has changed as well, that one is for the new
    address: `endpoint_for` raises PortalMoved for the copy, which must not be saved.
    """
    moved = any(getattr(portal, name) != frozen[name] for name in _ADDRESS)
    then = copy(portal)
    for name in (*FROZEN, *_THERE) if moved else FROZEN:
        setattr(then, name, frozen[name])
    then.machine = machine_now(portal, frozen)
    then.real_root = root_now(portal, frozen)
    then.lost_credential = moved and frozen.get("credential") != _stamp(portal.credential)
    return then


def endpoint_to_test(portal: Portal) -> Endpoint:
    """The endpoint of a portal's root, wherever it leads; a disabled portal may be tested too."""
    return _endpoint(portal, "")._replace(real_root="")


def ssh_address(portal: Portal) -> SshAccess:
    """The address of the portal's host and the user name, without anything to log in with."""
    return SshAccess(
        host=portal.host,
        port=portal.port,
        username=portal.username,
        passes=tuple(settings.KETTER_SSH_ENV),
    )


def _endpoint(portal: Portal, path: str) -> Endpoint:
    ssh = _ACCESS[portal.kind](portal)
    real_root = real_path(portal.real_root)
    return Endpoint(root=portal.root_path, path=path, ssh=ssh, real_root=real_root)


def _local_access(portal: Portal) -> None:
    check_here(portal)


def _ssh_access(portal: Portal) -> SshAccess:
    if not portal.host_key:
        raise HostKeyNotPinned(
            _(
                "The host key of the portal “%s” is not pinned: test the connection, compare "
                "the fingerprint with the host's own, and pin it."
            )
            % portal.name
        )
    if portal.lost_credential:
        raise PortalMoved(
            _(
                "The portal “%(name)s” was at %(host)s, port %(port)s, when this job began. It has "
                "another address and another credential now, and Ketter does not use that one at "
                "%(host)s."
            )
            % {"name": portal.name, "host": portal.host, "port": portal.port}
        )
    access = ssh_address(portal)._replace(host_key=portal.host_key)
    return _with_credential(access, portal.credential) if portal.credential else access


#: How the engine reaches a portal of each kind, with the secrets for that.
_ACCESS: dict[str, Callable[[Portal], SshAccess | None]] = {
    PortalKind.LOCAL: _local_access,
    PortalKind.SSH: _ssh_access,
}


def _with_credential(access: SshAccess, credential: Credential) -> SshAccess:
    match credential.kind:
        case CredentialKind.PASSWORD:
            return access._replace(password=_open(credential))
        case CredentialKind.PRIVATE_KEY:
            return access._replace(private_key=_open(credential))
        case CredentialKind.KEY_FILE:
            return access._replace(identity_file=credential.key_path)
        case CredentialKind.AGENT:
            return access._replace(passes=(*(access.passes or ()), "SSH_AUTH_SOCK"))
    return access


def _open(credential: Credential) -> str:
    try:
        return decrypt(credential.secret, of=credential.row)
    except CannotDecrypt as error:
        raise type(error)(
            _("Credential “%(name)s”: %(why)s") % {"name": credential.name, "why": error}
        ) from None
