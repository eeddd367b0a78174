"""Connects a helper's session to both ends of a transfer that another worker runs."""

from __future__ import annotations

from engine import errors
from engine.agent.wire import FILE, Entry
from engine.loans import Location
from engine.protocol.commands import OPEN, STAGE
from engine.session.places import named
from engine.session.session import Session


def location_of(session: Session) -> Location:
    """Return where both ends are, so that a helper finds the same places."""
    aim, source = session.aim, session.source_found
    return Location(
        aim.source_path,
        aim.target_path,
        (aim.single[0].path, aim.single[1]) if aim.single else (),
        source.machine,
        source.ancestor_ids[1 if aim.single else 0],
        session.target_found.machine,
    )


def join(session: Session, location: Location, label: str) -> None:
    """Connect to both ends of another worker's transfer, as the helper of this label.

    Raises BadRequest if this worker finds other places there, and the target's error if the
    transfer's staging folder is missing.
    """
    request, aim = session.request, session.aim
    session.connect()
    session.source.greet()
    found = session.inspect(session.source, location.source_path)
    if (found.machine, found.ancestor_ids[0]) != (location.machine, tuple(location.folder)):
        raise errors.BadRequest(
            f"this helper finds another folder at {found.shown} than the transfer's source"
        )
    aim.source_path, aim.target_path = location.source_path, location.target_path
    if location.names:
        aim.single = (Entry(location.names[0], FILE, 0, 0, 0, 0), location.names[1])
    session.source.request(OPEN, **named(request.source, location.source_path))
    session.target.greet()
    found = session.inspect(session.target, location.target_path)
    if found.machine != location.target_machine:
        raise errors.BadRequest(
            f"this helper finds {found.shown} on another machine than the transfer's target"
        )
    session.target.request(STAGE, attach=True, label=label, **session.staging.arguments())
