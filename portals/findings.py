"""What a connection test finds at a portal, put in words; nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

import engine
from portals.endpoints import endpoint_to_test, ssh_address
from portals.errors import HostKeyNotPinned, PortalError
from portals.models import Portal, PortalHealth, PortalKind


@dataclass(frozen=True)
class Finding:
    """The outcome of one test: a health, a code, a sentence, and what was seen.

    `offer` is the key the host showed when none is pinned, or another one is.
    It is an offer only: nothing trusts it until a person has pinned it.
    """

    health: PortalHealth
    code: str
    message: str
    probe: engine.Probe | None = None
    offer: engine.HostKey | None = None


def portal_look(portal: Portal) -> Finding:
    """Connect to the portal as a job would and say what is there; every failure is a finding."""
    try:
        return _judge(portal, engine.probe(endpoint_to_test(portal)))
    except HostKeyNotPinned:
        return _unknown_key(portal)
    except (engine.HostKeyChanged, engine.HostKeyUnknown) as error:
        return _other_key(portal, error)
    except (engine.EngineError, PortalError) as error:
        return Finding(PortalHealth.FAILING, error.code, str(error))


def _unknown_key(portal: Portal) -> Finding:
    try:
        offer = engine.fetch_host_key(ssh_address(portal))
    except engine.EngineError as error:
        return Finding(PortalHealth.FAILING, error.code, str(error))
    message = _(
        "The host key of %(host)s is not pinned yet. The host shows %(fingerprint)s: compare it "
        "with the host's own, then pin it."
    ) % {"host": portal.host, "fingerprint": offer.fingerprint}
    return Finding(PortalHealth.FAILING, HostKeyNotPinned.code, message, offer=offer)


def _other_key(portal: Portal, error: engine.EngineError) -> Finding:
    """The pinned key was not shown. Nothing was sent; a person decides what that means."""
    try:
        offer = engine.fetch_host_key(ssh_address(portal))
    except engine.EngineError:
        offer = None  # What counts is the error that brought us here.
    return Finding(PortalHealth.HOST_KEY_CHANGED, error.code, str(error), offer=offer)


def size(count: int) -> str:
    """A number of bytes for a person, in text that terminals and JSON show as it is."""
    return filesizeformat(count).replace("\xa0", " ")


def _judge(portal: Portal, probe: engine.Probe) -> Finding:
    where = portal.host if portal.kind == PortalKind.SSH else _("this machine")
    words = {"root": portal.root_path, "where": where}
    if not probe.exists:
        message = _("The root folder %(root)s does not exist on %(where)s.") % words
        return Finding(PortalHealth.FAILING, "ROOT_MISSING", message, probe)
    if not probe.is_dir:
        message = _("The root %(root)s on %(where)s is not a folder.") % words
        return Finding(PortalHealth.FAILING, "ROOT_NOT_A_FOLDER", message, probe)
    words |= {
        "system": probe.system,
        "python": probe.python,
        "free": size(probe.free_bytes),
        "total": size(probe.total_bytes),
    }
    message = (
        _(
            "%(root)s on %(where)s is ready: %(free)s of %(total)s free (%(system)s, "
            "Python %(python)s)."
        )
        if probe.writable
        else _(
            "%(root)s on %(where)s is read-only for this user: it can be a source, but not a "
            "target (%(system)s, Python %(python)s)."
        )
    )
    return Finding(PortalHealth.OK, "OK", message % words, probe)
