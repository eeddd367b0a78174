"""Which machine a portal of the kind *this machine* is on, and which machines have workers.

Each worker's parent notes its machine with every run of the reaper (`machine_seen`). The name is
KETTER_MACHINE there. A process uses the folder of such a portal only if it is on that machine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from portals.errors import MachineAlive, MachineNotAlive, OtherMachine
from portals.kinds import PortalKind
from portals.models import Machine, Portal

log = logging.getLogger(__name__)

#: Days after which a machine without workers is forgotten, unless a portal is on it.
KEPT_DAYS = 30
#: A machine notes itself with each run of the reaper; it may miss so many of them.
MISSES = 4
#: Stands in `Portal.former_machines` where a person has given the portal another machine.
EDIT = "|"

# --- Which machines are alive ------------------------------------------------


def machine_seen(*, name: str) -> None:
    """Note that a worker of this machine is alive, and forget machines of long ago."""
    if not Machine.objects.filter(name=name).update(seen_at=Now()):
        Machine.objects.bulk_create([Machine(name=name, seen_at=Now())], ignore_conflicts=True)
    old = Machine.objects.filter(seen_at__lt=Now() - timedelta(days=KEPT_DAYS))
    old.exclude(name__in=local_portals().values("machine")).delete()


def machines_alive() -> set[str]:
    """The machines of which a worker was seen not long ago, by the database's clock."""
    silence = max(settings.KETTER_LEASE_SECONDS, MISSES * settings.KETTER_REAPER_SECONDS)
    seen = Machine.objects.filter(seen_at__gt=Now() - timedelta(seconds=silence))
    return set(seen.values_list("name", flat=True))


def machine_for_new_portal() -> str:
    """The machine of a portal that is made without one: the one alive, else this one."""
    alive = machines_alive()
    return alive.pop() if len(alive) == 1 else settings.KETTER_MACHINE


# --- Which machine a portal is on --------------------------------------------


def local_portals() -> QuerySet[Portal]:
    """The portals of the kind *this machine*."""
    return Portal.objects.filter(kind=PortalKind.LOCAL)


def machine_stamp(portal: Portal) -> dict[str, Any]:
    """What a job keeps of its portal's machine: the name, and after which edit of it."""
    return {"machine": portal.machine, "machine_edits": portal.former_machines.count(EDIT)}


def machine_now(portal: Portal, frozen: dict[str, Any]) -> str:
    """The machine that counts for a job that began with `frozen`.

    That is the one it began with, under its present name if a person has said that it was
    renamed: another machine may have got the old name since. After an edit of the portal's
    machine that is the last name before it. A job of a version without machines has none: the
    portal's counts.
    """
    if "machine" not in frozen:
        return portal.machine
    begun = str(frozen["machine"])
    names = [edit.split() for edit in portal.former_machines.split(EDIT)]
    names[-1].append(portal.machine)
    then = names[min(frozen.get("machine_edits", 0), len(names) - 1)]
    return then[-1] if begun in then else begun


def former_after_edit(portal: Portal, before: str) -> str:
    """The earlier names of a portal whose machine, called `before`, is another one from now on.

    They stay while the portal is one behind SSH, which is on no machine: jobs may have begun there.
    """
    if not portal.former_machines:
        return ""
    return f"{portal.former_machines} {before} {EDIT}"


def check_here(portal: Portal) -> None:
    """Raise OtherMachine unless this process is on the portal's machine."""
    if portal.machine == settings.KETTER_MACHINE:
        return
    words = {"name": portal.name, "machine": portal.machine, "here": settings.KETTER_MACHINE}
    if not portal.machine:
        raise OtherMachine(_("No machine is on record yet for the portal “%(name)s”.") % words)
    raise OtherMachine(
        _(
            "The portal “%(name)s” is on machine “%(machine)s”, and this is “%(here)s”: Ketter "
            "does not use the folder of that path here."
        )
        % words
    )


def why_not(portal: Portal, alive: Collection[str], *, now: Portal | None = None) -> str:
    """Why no worker can use a portal of the kind *this machine*; empty if one can.

    For a job that has begun, `portal` is as it was then, and `now` as it is.
    """
    if portal.machine in alive:
        return ""
    if now and now.machine != portal.machine:
        return _way_back(portal, alive, now)
    words = {"name": portal.name, "machine": portal.machine, "alive": ", ".join(sorted(alive))}
    if not portal.machine and len(alive) > 1:
        return (
            _(
                "No machine is on record for portal “%(name)s”, and several have workers "
                "(%(alive)s): enter the one that has its root folder."
            )
            % words
        )
    if not portal.machine:
        return _("No machine is on record yet for portal “%(name)s”: a worker notes it.") % words
    if len(alive) == 1:
        return (
            _(
                "Portal “%(name)s” is on machine “%(machine)s”, where no worker is alive. If "
                "“%(alive)s” is that machine under a new name, confirm it at the portal (“Test "
                "connection”)."
            )
            % words
        )
    return (
        _("Waits for a worker on machine “%(machine)s”, where portal “%(name)s” is: none is alive.")
        % words
    )


def _way_back(then: Portal, alive: Collection[str], now: Portal) -> str:
    """What to do for a job that began before a person gave its portal another machine or kind.

    To confirm a new name of the machine is refused then: the portal is not on it any more.
    """
    words = {
        "name": then.name,
        "machine": then.machine,
        "now": f"“{now.machine}”" if now.machine else now.get_kind_display(),
        "alive": ", ".join(sorted(alive)),
    }
    sentence = (
        _(
            "This job began on machine “%(machine)s”, where no worker is alive; portal “%(name)s” "
            "was changed to %(now)s since. Start a worker with KETTER_MACHINE=%(machine)s on the "
            "machine that had the folder when the job began."
        )
        % words
    )
    if now.kind != PortalKind.LOCAL or now.former_machines or len(alive) != 1:
        return sentence
    again = (
        _(
            "If “%(alive)s” is that machine under a new name, enter “%(machine)s” at the portal "
            "again instead, and confirm the new name there (“Test connection”)."
        )
        % words
    )
    return f"{sentence} {again}"


def portals_adopt(*, machine: str) -> int:
    """Note this machine at the portals that have none; return how many.

    The caller knows that no other machine has workers. An older version made such portals.
    """
    count = local_portals().filter(machine="").update(machine=machine)
    if count:
        log.info("%d portals of the kind this machine are on %s from now on", count, machine)
    return count


@transaction.atomic
def machine_rename(*, portal: Portal, to: str) -> int:
    """Note that a portal's machine is called `to` now, at all portals on it; return how many.

    Jobs that have begun go on there. Raises ValidationError if the portal is on no machine,
    MachineAlive if workers are alive under its old name: then it is another machine, and
    MachineNotAlive if none is alive under the new one.
    """
    name, alive = portal.machine, machines_alive()
    if not name:
        raise ValidationError({"machine": _("This portal is on no machine that has a name.")})
    words = {"name": name, "to": to}
    if name in alive:
        raise MachineAlive(
            _("Machine “%(name)s” has workers under that name: it has not been renamed.") % words
        )
    if to not in alive:
        raise MachineNotAlive(
            _("No worker of machine “%(to)s” is alive: start one there first.") % words
        )
    portals = list(local_portals().filter(machine=name).select_for_update())
    for one in portals:
        one.machine, one.former_machines = to, f"{one.former_machines} {name}".lstrip()
        one.save(update_fields=["machine", "former_machines", "updated_at"])
    log.info("machine %s is called %s now: %d portals", name, to, len(portals))
    return len(portals)


def renamed_to(portal: Portal) -> str:
    """The machine that may be the portal's under a new name: the only one alive; else empty."""
    if portal.kind != PortalKind.LOCAL or not portal.machine:
        return ""
    alive = machines_alive()
    return alive.pop() if len(alive) == 1 and portal.machine not in alive else ""
