"""Preflight: reaches and inspects both ends, and refuses a transfer that cannot work."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from engine import errors
from engine.agent.wire import FILE, staging_name
from engine.protocol.commands import OPEN, SCAN, STAT
from engine.protocol.lists import entries_of
from engine.protocol.replies import InspectReply
from engine.session.places import named
from engine.session.session import Session
from engine.types import HardLinks, Mode, Request, Strategy, display_path


def open_source(session: Session) -> None:
    """Wait for the source, and start its scan.

    A folder's scan runs while the target is still being connected. Raises SourceMissing,
    RootMissing, or BadRequest if the source is neither a folder nor a file.
    """
    session.source.greet()
    found = session.inspect(session.source, session.aim.source_path)
    session.source_found = found
    if found.kind == "absent":
        raise _source_missing(session, found)
    if found.kind == "other":
        raise errors.BadRequest(f"{found.shown} is neither a folder nor a file")
    request = session.request
    if request.mode is Mode.MOVE and found.linked:
        _refuse_to_move_link(request, found)
    if found.kind == "folder":
        session.source.request(OPEN, removes=_removes(request), **named(request.source))
        session.source.send(
            SCAN,
            filters=request.filters,
            symlinks=request.symlinks,
            hard_links=HardLinks.COPY
            if request.strategy == Strategy.ARCHIVE
            else request.hard_links,
            xattrs=request.xattrs,
            mode_bits=request.mode_bits,
        )


def inspect_target(session: Session) -> None:
    """Wait for the target, and refuse what cannot work; change nothing.

    Raises RootMissing, BadRequest, TargetExists if a folder would replace a file, or Overlap.
    """
    session.target_system = session.target.greet().system
    staging = staging_name(session.request.transfer_id)
    found = session.inspect(session.target, session.request.target.path, staging)
    session.target_found, source = found, session.source_found
    request, aim = session.request, session.aim
    if not found.has_root:
        # The root is not made: its disk may not be mounted, and a move would fill another one.
        raise errors.RootMissing(f"the root {request.target.root} does not exist at the target")
    if not request.make_parents and found.kind == "absent":
        _refuse_to_make_parents(session)
    if source.kind == "file":
        aim.at_file(request, source, found)
    if request.strategy == Strategy.ARCHIVE:
        aim.at_archive(request, source, found)
    elif not aim.single and found.kind not in ("absent", "folder"):
        raise errors.TargetExists(f"{found.shown} is a file, the source a folder")
    if session.one_machine and aim.overlaps(source, found):
        raise errors.Overlap(
            f"{source.shown} and {found.shown} are the same place or lie inside each other"
        )
    if source.kind == "file":
        _open_file(session)


def warnings_of(session: Session) -> Iterator[tuple[str, str]]:
    """Yield a code and a sentence for what both ends have, and a person may not expect."""
    source, target = session.source_found, session.target_found
    if session.request.mode is Mode.MOVE and source.read_only:
        sentence = "its files are copied, but none can be removed there"
        yield "SOURCE_READ_ONLY", f"{source.shown} is mounted read-only: {sentence}"
    for folder in target.unmounted:
        sentence = f"{folder} is in the target's /etc/fstab, but nothing is mounted there"
        yield "NOT_MOUNTED", f"{sentence}: the transfer fills the disk below; mount it first"


def _refuse_to_make_parents(session: Session) -> None:
    above = posixpath.dirname(session.request.target.path.rstrip("/"))
    found = session.inspect(session.target, above)
    if found.kind == "absent":
        raise errors.BadRequest(
            f"{found.shown} does not exist at the target, and the folders above the last one are "
            "not to be made: make it first"
        )


def _refuse_to_move_link(request: Request, found: InspectReply) -> None:
    """Raise BadRequest: a move would take what a symlink leads to, and leave the link behind.

    With a `/` at its end a path means what a folder holds, as `mv` and `rsync` take it.
    """
    path = posixpath.join(request.source.root, request.source.path)
    if found.kind == "file" or not path.endswith("/"):
        either = ", or end the path with / to move what it holds" if found.kind == "folder" else ""
        raise errors.BadRequest(
            f"{display_path(path.rstrip('/'))} is a symlink to {found.shown}: a move would leave "
            f"the link and take what it leads to; name {found.shown} itself{either}"
        )


def _source_missing(session: Session, found: InspectReply) -> errors.EngineError:
    source = session.request.source
    if not found.has_root:  # Its disk may not be mounted.
        return errors.RootMissing(f"the root {source.root} does not exist at the source")
    error = errors.SourceMissing(f"{found.shown} does not exist at the source")
    above = posixpath.dirname(source.path.rstrip("/"))
    error.folder_there = session.inspect(session.source, above).kind == "folder"
    return error


def _open_file(session: Session) -> None:
    """Open the folder of a single file, and read the file's entry."""
    aim = session.aim
    assert aim.single
    place = named(session.request.source, aim.source_path)
    session.source.request(OPEN, removes=_removes(session.request), **place)
    planned, name = aim.single
    reply = session.source.request(STAT, path=planned.path)
    found, aim.holes = entries_of(reply.entries), reply.holes
    if not found or found[0].kind != FILE:
        raise errors.SourceChanged(f"{session.source_found.shown} is no longer a file")
    aim.single = (found[0]._replace(mode=found[0].mode & session.request.mode_bits), name)


def _removes(request: Request) -> bool:
    return request.mode is Mode.MOVE
