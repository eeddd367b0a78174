"""Starts one transfer, or a dry run of it; `engine.phases` carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import errors
from engine.observer import Observer, SilentObserver
from engine.session.session import Session
from engine.types import Mode, OnConflict, Report, Request, Strategy, Symlinks

if TYPE_CHECKING:
    from engine.phases import Transfer


def run(request: Request, observer: Observer | None = None) -> Report:
    """Carry out a transfer; return how it ended, or raise an EngineError.

    Whatever the engine or the observer raises: no final name at the target
    shows unproven content, and no source entry was removed without
    proof. The staging folder is removed if the target can still be reached,
    unless the error has `kept`: after a lost connection, for example, a next run
    can resume from it (`resume`); a next run without `resume` clears it away.
    """
    return _begin(request, observer or SilentObserver()).run()


def dry_run(request: Request, observer: Observer | None = None) -> dict[str, Any]:
    """Return what `run` would do, changing nothing; raises as `run` does up to that point.

    Conflicts with entries at the target are counted, not refused: see `conflicts`.
    """
    return _begin(request, observer or SilentObserver()).plan_only()


def archive_is_at_risk(mode: str, strategy: str, on_conflict: str) -> bool:
    """True if a second run could replace a delivered archive by a smaller one."""
    overwrites = on_conflict in (OnConflict.OVERWRITE, OnConflict.OVERWRITE_OLDER)
    return mode == Mode.MOVE and strategy == Strategy.ARCHIVE and overwrites


@errors.on_this_machine()
def _begin(request: Request, observer: Observer) -> Transfer:
    if request.mode is Mode.MOVE and request.symlinks is Symlinks.FOLLOW:
        raise errors.BadRequest(
            "a move cannot follow symlinks: it may remove only entries that it has proven"
        )
    if archive_is_at_risk(request.mode, request.strategy, request.on_conflict):
        raise errors.BadRequest(
            "a move into an archive cannot overwrite an archive: if it were stopped while it "
            "removes the source, the next run would replace the complete archive by one of the rest"
        )
    session = Session(request, observer.checkpoint)
    try:
        session.connect()
        # Imported while the connection is being made, which takes a fifth of a second at best.
        from engine.phases import Transfer

        return Transfer(session, observer)
    except BaseException:
        session.close()
        raise
