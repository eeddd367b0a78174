"""Checks of the places that bytes come from and go to: this machine's disks, and the portals."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from dku.arena import PORTAL_NAMES
from dku.findings import Finding, Verdict, first_line, worst
from portals.errors import PortalError
from portals.kinds import KINDS
from portals.machines import machines_alive, why_not
from portals.models import Portal, PortalHealth, PortalState
from portals.services import portal_test

FREE_WARN = 20.0
FREE_FAIL = 5.0
#: Portals tested at once: a dead host takes its whole connection timeout.
AT_ONCE = 8
GIB = 1024**3


def _portals() -> list[Portal]:
    """The portals that jobs may use, without the smoke transfer's own."""
    active = Portal.objects.filter(state=PortalState.ACTIVE).exclude(name__in=PORTAL_NAMES)
    return list(active.select_related("credential"))


def _free(name: str, folder: Path) -> dict[str, Any]:
    """The free room on one folder's disk, with a verdict."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        line = f"{name}: {folder}: {error.strerror}"
        return {"name": name, "folder": str(folder), "verdict": Verdict.WARN, "line": line}
    percent = round(usage.free / usage.total * 100, 1) if usage.total else 0.0
    if percent < FREE_FAIL:
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.WARN if percent < FREE_WARN else Verdict.PASS
    return {
        "name": name,
        "folder": str(folder),
        "verdict": verdict,
        "free_percent": percent,
        "free_bytes": usage.free,
        "line": f"{name}: {folder}: {percent} % free, {usage.free / GIB:.1f} GiB",
    }


def _var() -> dict[str, Any]:
    """The free room on the disk of Ketter's own folder, which must be writable, too."""
    look = _free("var", settings.VAR_DIR)
    if not os.access(settings.VAR_DIR, os.W_OK | os.X_OK):
        look |= {"verdict": Verdict.FAIL, "line": f"var: {settings.VAR_DIR}: not writable"}
    return look


def disk() -> Finding:
    """Check the free room below VAR_DIR and below the root of every portal on this machine."""
    looks = [_var()]
    sentence = ""
    try:
        local = [portal for portal in _portals() if portal.machine == settings.KETTER_MACHINE]
    except DatabaseError:
        local, sentence = [], "The portals' folders are unknown without the database. "
    looks += [_free(portal.name, Path(portal.root_path)) for portal in local]
    verdict = worst(look["verdict"] for look in looks)
    least = min((look["free_percent"] for look in looks if "free_percent" in look), default=0.0)
    if verdict is Verdict.PASS:
        sentence += f"Every disk has more than {FREE_WARN:.0f} % free."
    else:
        sentence += "Too little room, or not usable: " + "; ".join(
            look["line"] for look in looks if look["verdict"] is not Verdict.PASS
        )
    return Finding(
        verdict,
        f"{len(looks)} folder(s), least free {least} %",
        sentence,
        "" if verdict is Verdict.PASS else "Make room there, or correct the folder.",
        tuple(look["line"] for look in looks),
        {"folders": [{k: v for k, v in look.items() if k != "line"} for look in looks]},
    )


def machine() -> Finding:
    """Name this machine, and check that every portal's machine has workers."""
    alive = machines_alive()
    local = [portal for portal in _portals() if KINDS[portal.kind].is_here]
    waits = tuple(filter(None, (why_not(portal, alive) for portal in local)))
    value = f"{settings.KETTER_MACHINE}, with workers: {', '.join(sorted(alive)) or 'none'}"
    measured = {"name": settings.KETTER_MACHINE, "alive": sorted(alive), "waiting": len(waits)}
    if waits:
        return Finding(
            Verdict.WARN,
            value,
            f"Jobs over {len(waits)} portal(s) of the kind “this machine” wait for its workers.",
            "Start a worker there; or correct the machine in the portal's page. Each machine has "
            "its name from KETTER_MACHINE.",
            waits,
            measured,
        )
    return Finding(Verdict.PASS, value, "Every portal's machine has workers.", "", (), measured)


def _portal_fault(portal: Portal) -> str:
    """The fault of a portal; empty if it has none, or is on another machine."""
    if _untested(portal):
        return ""
    try:
        found = portal_test(portal)
    except PortalError as error:
        return f"{error.code}: {first_line(error)}"
    finally:
        # Each thread of the pool has a connection of its own, which no other code closes.
        connection.close()
    return "" if found.health == PortalHealth.OK else f"{found.code}: {found.message}"


def _untested(portal: Portal) -> str:
    if KINDS[portal.kind].is_here and portal.machine != settings.KETTER_MACHINE:
        return f"not tested here, it is on machine {portal.machine or 'unknown'}"
    return ""


def portals() -> Finding:
    """Check that every active portal can be reached and used.

    A portal that cannot is a warning, not a failure: its host is not part of the
    installation, and Ketter is healthy without it. A folder of another machine is tested by
    the DKU there.
    """
    rows = _portals()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        faults = list(pool.map(_portal_fault, rows))
    failing = [row.name for row, fault in zip(rows, faults, strict=True) if fault]
    details = tuple(
        f"{row.name} ({row.kind} {row.host or row.root_path}): {fault or _untested(row) or 'ok'}"
        for row, fault in zip(rows, faults, strict=True)
    )
    measured = {"active": len(rows), "failing": failing}
    value = f"{len(rows) - len(failing)} of {len(rows)} ok"
    if failing:
        return Finding(
            Verdict.WARN,
            value,
            f"Jobs over these portals will fail: {', '.join(failing)}.",
            "Open the portal in the admin and test its connection.",
            details,
            measured,
        )
    sentence = "Every active portal can be used." if rows else "No portal is registered yet."
    return Finding(Verdict.PASS, value, sentence, "", details, measured)
