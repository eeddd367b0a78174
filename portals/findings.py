"""Tests the connection to a portal and words the result; this module writes no row."""

from __future__ import annotations

from dataclasses import dataclass

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

import engine
from portals.endpoints import endpoint_to_test, ssh_address
from portals.errors import HostKeyNotPinned, OtherMachine, PortalError
from portals.kinds import KINDS
from portals.models import Portal, PortalHealth
from portals.roots import kept, shown

_EXPOSED = gettext_lazy(
    "Warning: users other than root and the portal's user can put another folder in the root's "
    "place, because they own or may write to %s."
)


@dataclass(frozen=True)
class Finding:
    """The result of one test: a health, a code, a sentence, and what the probe found.

    `offer` is the key that the host shows if none is pinned, or another one is. `moved_to`
    is the root's real path (see `roots.kept`) if another one is recorded. Nothing trusts
    either before a person has pinned or confirmed it.
    """

    health: PortalHealth
    code: str
    message: str
    probe: engine.Probe | None = None
    offer: engine.HostKey | None = None
    moved_to: str = ""


def portal_look(portal: Portal) -> Finding:
    """Connect to the portal as a job would and report the result; every failure is a finding.

    About a folder of another machine the finding repeats the health of the last test.
    """
    try:
        return _judge(portal, engine.probe(endpoint_to_test(portal)))
    except HostKeyNotPinned:
        return _unknown_key(portal)
    except (engine.HostKeyChanged, engine.HostKeyUnknown) as error:
        return _other_key(portal, error)
    except OtherMachine as error:
        message = _("%s To test it, run `manage.py dku` there, or launch a job.") % error
        return Finding(PortalHealth(portal.health), error.code, message)
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
    """The host does not show the pinned key. Ketter has sent nothing; a person decides."""
    try:
        offer = engine.fetch_host_key(ssh_address(portal))
    except engine.EngineError:
        offer = None  # The finding reports the first error.
    return Finding(PortalHealth.HOST_KEY_CHANGED, error.code, str(error), offer=offer)


def size(count: int) -> str:
    """A number of bytes for a person, in text that terminals and JSON show as it is."""
    return filesizeformat(count).replace("\xa0", " ")


def _judge(portal: Portal, probe: engine.Probe) -> Finding:
    where = _("this machine") if KINDS[portal.kind].is_here else portal.host
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
    message = message % words
    if probe.exposed:
        others = ", ".join(map(engine.display_path, probe.exposed))
        message = f"{message} {_EXPOSED % others}"
    found = kept(probe.realpath)
    if portal.real_root not in ("", found):
        return root_moved(portal, portal.real_root, found, probe)
    return Finding(PortalHealth.OK, "OK", message, probe)


def root_moved(portal: Portal, recorded: str, found: str, probe: engine.Probe) -> Finding:
    """The finding that the root is another folder than the recorded one."""
    message = _(
        "The root folder %(root)s should be %(recorded)s, as recorded, but it is %(found)s. Jobs "
        "stop here until a user who may change portals confirms the new place."
    ) % {"root": portal.root_path, "found": shown(found), "recorded": shown(recorded)}
    code = engine.RootMoved.code
    return Finding(PortalHealth.FAILING, code, message, probe, moved_to=found)
