"""One transfer: the way in; `engine.phases` is the way through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import errors
from engine.session import Session
from engine.types import (
    Mode,
    Observer,
    OnConflict,
    Report,
    Request,
    SilentObserver,
    Strategy,
    Symlinks,
)

if TYPE_CHECKING:
    from engine.phases import Transfer


def run(request: Request, observer: Observer | None = None) -> Report:
    """Carry out a transfer; return how it ended, or raise an EngineError.

    Whatever is raised, by the engine or by the observer: no final name at the
    target shows unproven content, and no source entry was removed without
    proof. The staging folder is gone where the target could still be reached,
    unless the error says `kept`: after a lost connection, say, it pays to go on
    (`resume`); a next run without `resume` clears it away.
    """
    return _begin(request, observer or SilentObserver()).run()


def dry_run(request: Request, observer: Observer | None = None) -> dict[str, Any]:
    """What `run` would do, without changing anything; raises as `run` does up to there.

    What the target holds already is counted, not refused: see `conflicts`.
    """
    return _begin(request, observer or SilentObserver()).plan_only()


def archive_is_at_risk(mode: str, strategy: str, on_conflict: str) -> bool:
    """Whether a second run could replace a delivered archive by a smaller one."""
    overwrites = on_conflict in (OnConflict.OVERWRITE, OnConflict.OVERWRITE_OLDER)
    return mode == Mode.MOVE and strategy == Strategy.ARCHIVE and overwrites


@errors.on_this_machine()
def _begin(request: Request, observer: Observer) -> Transfer:
    if request.mode is Mode.MOVE and request.symlinks is Symlinks.FOLLOW:
        raise errors.BadRequest("a move cannot follow symlinks: only what is proven may go")
    if archive_is_at_risk(request.mode, request.strategy, request.on_conflict):
        raise errors.BadRequest(
            "a move into an archive cannot overwrite one: stopped while it removes the source, the "
            "next run would replace the whole archive by one of what is left"
        )
    session = Session(request, observer.checkpoint)
    try:
        session.connect()
        # Loaded while the connection is being made: that takes a fifth of a second at best.
        from engine.phases import Transfer

        return Transfer(session, observer)
    except BaseException:
        session.close()
        raise
