"""From a portal's row to the engine's endpoint: the only place where secrets are opened."""

from __future__ import annotations

from copy import copy
from typing import Any

from django.utils.translation import gettext as _

from engine.types import Endpoint, SshAccess
from portals.crypto import decrypt
from portals.errors import CannotDecrypt, HostKeyNotPinned, PortalDisabled
from portals.models import Credential, CredentialKind, Portal, PortalKind, PortalState


def endpoint_for(portal: Portal, path: str) -> Endpoint:
    """The endpoint of a path in a portal, for a job that runs now.

    Refuses a disabled portal and one behind SSH whose host key nobody pinned.
    """
    if portal.state == PortalState.DISABLED:
        raise PortalDisabled(_("The portal “%s” is disabled.") % portal.name)
    return _endpoint(portal, path)


#: What says where a portal is; a job that has begun keeps to it.
FROZEN = ("kind", "host", "port", "root_path")
_ADDRESS = ("kind", "host", "port")
#: What belongs to that address.
_THERE = ("username", "host_key")


def freeze(portal: Portal) -> dict[str, Any]:
    """Where a portal is at this moment, without any secret, to be kept with a job."""
    return {name: getattr(portal, name) for name in (*FROZEN, *_THERE)}


def thawed(portal: Portal, frozen: dict[str, Any]) -> Portal:
    """The portal as it was when a job began, with the credential that it has now.

    For the same address a user name and a pin that were changed count, too: so a
    person can mend what a job waits for. The copy must not be saved.
    """
    moved = any(getattr(portal, name) != frozen[name] for name in _ADDRESS)
    then = copy(portal)
    for name in (*FROZEN, *_THERE) if moved else FROZEN:
        setattr(then, name, frozen[name])
    return then


def endpoint_to_test(portal: Portal) -> Endpoint:
    """The endpoint of a portal's root; a disabled portal may be tested too."""
    return _endpoint(portal, "")


def ssh_address(portal: Portal) -> SshAccess:
    """Where the portal's host listens, without anything that would log in there."""
    return SshAccess(host=portal.host, port=portal.port, username=portal.username)


def _endpoint(portal: Portal, path: str) -> Endpoint:
    ssh = _ssh_access(portal) if portal.kind == PortalKind.SSH else None
    return Endpoint(root=portal.root_path, path=path, ssh=ssh)


def _ssh_access(portal: Portal) -> SshAccess:
    if not portal.host_key:
        raise HostKeyNotPinned(
            _(
                "The host key of the portal “%s” is not pinned: test the connection, compare "
                "the fingerprint with the host's own, and pin it."
            )
            % portal.name
        )
    access = ssh_address(portal)._replace(host_key=portal.host_key)
    return _with_credential(access, portal.credential) if portal.credential else access


def _with_credential(access: SshAccess, credential: Credential) -> SshAccess:
    match credential.kind:
        case CredentialKind.PASSWORD:
            return access._replace(password=_open(credential))
        case CredentialKind.PRIVATE_KEY:
            return access._replace(private_key=_open(credential))
        case CredentialKind.KEY_FILE:
            return access._replace(identity_file=credential.key_path)
    return access  # The agent: the OpenSSH client finds it by itself.


def _open(credential: Credential) -> str:
    try:
        return decrypt(credential.secret)
    except CannotDecrypt as error:
        raise CannotDecrypt(
            _("Credential “%(name)s”: %(why)s") % {"name": credential.name, "why": error}
        ) from None
