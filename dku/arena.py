"""The place of smoke transfers: two portals of their own, emptied before and after.

A portal that jobs refer to cannot be deleted, so `dku-source` and `dku-target`
are permanent; DKU makes and empties only their folders below VAR_DIR/dku.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User

from dku.trees import ROOM_BYTES, empty_folder
from jobs.errors import JobError
from jobs.models import Job
from jobs.services import job_cancel
from portals.kinds import PortalKind
from portals.models import Portal, PortalState
from portals.roots import kept
from portals.services import (
    PortalChanges,
    portal_confirm_root,
    portal_create,
    portal_update,
)

SOURCE = "dku-source"
TARGET = "dku-target"
PORTAL_NAMES = (SOURCE, TARGET)
USERNAME = "dku"
#: How long a cancelled job may take to release its files.
CANCEL_SECONDS = 15.0


class ArenaBusy(Exception):
    """Another DKU is running its smoke transfer here; try again when it is done."""


class NoRoom(Exception):
    """There is too little room below VAR_DIR for the smoke transfer."""


@dataclass(frozen=True)
class Arena:
    """Two empty portals, and the user who launches jobs between them."""

    source: Portal
    target: Portal
    user: User

    @property
    def source_root(self) -> Path:
        """The source portal's folder."""
        return Path(self.source.root_path)

    @property
    def target_root(self) -> Path:
        """The target portal's folder."""
        return Path(self.target.root_path)


def home() -> Path:
    """The folder DKU works in."""
    return Path(settings.VAR_DIR) / "dku"


def smoke_user() -> User:
    """The user who launches smoke jobs; without a usable password, it cannot log in."""
    user, created = User.objects.get_or_create(username=USERNAME)
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


def _portal(name: str) -> Portal:
    """The portal of that name, at its folder below the present VAR_DIR."""
    root = str(home() / name.removeprefix("dku-"))
    empty_folder(Path(root))
    portal = Portal.objects.filter(name=name).first()
    if portal is None:
        here = settings.KETTER_MACHINE
        return portal_create(name=name, kind=PortalKind.LOCAL, root_path=root, machine=here)
    present: PortalChanges = {
        "root_path": root,
        "state": PortalState.ACTIVE,
        "machine": settings.KETTER_MACHINE,
    }
    if any(getattr(portal, field) != value for field, value in present.items()):
        return portal_update(portal, **present)
    if portal.real_root not in ("", real := kept(os.path.realpath(root))):
        # DKU made this folder itself, below VAR_DIR: no person has to confirm it.
        return portal_confirm_root(portal, real_root=real)
    return portal


def _end_jobs(user: User) -> None:
    """Cancel the live jobs between the two portals, and wait until they release the files."""
    live = Job.objects.live().filter(source_portal__name=SOURCE, target_portal__name=TARGET)
    for job in live.all():
        try:
            job_cancel(job, by=user)
        except JobError:
            continue  # The job has ended meanwhile.
    give_up = time.monotonic() + CANCEL_SECONDS
    while live.exists() and time.monotonic() < give_up:
        time.sleep(0.1)


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the arena's lock, which ends with this process, however that ends.

    Raises ArenaBusy if another DKU holds it.
    """
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArenaBusy("Another DKU is running its smoke transfer.") from None
        yield


@contextmanager
def arena() -> Iterator[Arena]:
    """The two portals, emptied before and on every way out.

    Raises ArenaBusy if another DKU uses them, NoRoom if their disk has too little room.
    """
    with _locked():
        free = shutil.disk_usage(home()).free
        if free < ROOM_BYTES:
            raise NoRoom(
                f"The smoke transfer needs {ROOM_BYTES} bytes in {home()}, {free} are free."
            )
        user = smoke_user()
        # A DKU that was killed may have left a job running.
        _end_jobs(user)
        stage = Arena(_portal(SOURCE), _portal(TARGET), user)
        try:
            yield stage
        finally:
            try:
                _clear(stage)
            except KeyboardInterrupt:
                # A second Ctrl-C: clear the folders all the same, then end.
                _clear(stage)
                raise


def _clear(stage: Arena) -> None:
    _end_jobs(stage.user)
    empty_folder(stage.source_root)
    empty_folder(stage.target_root)
