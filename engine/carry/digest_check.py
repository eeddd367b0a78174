"""Compares both ends' reports of a parcel, and decides which entries are sent again."""

from __future__ import annotations

from engine import errors
from engine.agent.wire import FOLDER, Entry, list_digest, pack_entries
from engine.carry.in_flight import TRIES, CarryObserver, ParcelInFlight
from engine.carry.whole_files import WholeFiles
from engine.connect.endings import error_of
from engine.parcels.builder import LargeFile
from engine.protocol.commands import CLOSE_ARCHIVE, DISCARD
from engine.protocol.digests import agree, all_agree, require_digests
from engine.protocol.fields import Failure
from engine.protocol.replies import ReceivedReply, SentReply
from engine.session.session import Session
from engine.session.stream import Stream
from engine.types import ParcelKind, display_path


class DigestCheck:
    """Compares both ends' reports of parcels.

    A helper has no `whole_files`: it gets only some slices of a file.
    """

    def __init__(
        self, session: Session, observer: CarryObserver, whole_files: WholeFiles | None
    ) -> None:
        self._session, self._observer, self.whole_files = session, observer, whole_files
        #: The source's SHA-256 of the archive, until the target has reported its own.
        self.unproven_archive = ""
        #: The SHA-256 of the archive that was carried, once both ends agree on it.
        self.archive_digest = ""

    @property
    def is_busy(self) -> bool:
        """True while an end still reads a file or an archive."""
        return bool(self.unproven_archive or (self.whole_files and self.whole_files.are_read))

    def compare(self, stream: Stream, flight: ParcelInFlight) -> bool:
        """Compare both ends' reports of a parcel; True if entries in `flight` are to be sent again.

        Raises VerifyFailed if the target received another list, or after the last try.
        """
        sent, received = flight.sent, flight.received
        assert sent
        assert received
        if received.list_digest != list_digest(self._session.aim.list_at_target(flight.blob)):
            raise errors.VerifyFailed(
                "the target received a list of entries that differs from the one that was sent"
            )
        if received.refusals:
            shown = "; ".join(received.refused)
            sentence = f"the target refused {received.refusals} extended attributes: {shown}"
            self._observer.warned("XATTRS_NOT_KEPT", sentence)
        if flight.kind is ParcelKind.RANGE:
            again = self._compare_slices(flight, sent, received)
        elif flight.kind is ParcelKind.ARCHIVE:
            again = self._compare_archive(stream, flight, sent)
        else:
            again = self._compare_entries(stream, flight, sent, received)
        if again and flight.tries == TRIES:
            raise errors.VerifyFailed(
                f"{again} arrived damaged {TRIES} times: the digests of both ends differ"
            )
        return bool(again)

    def break_off(self, large: LargeFile, code: str, sentence: str) -> None:
        """Report that a file in slices cannot be delivered."""
        if not large.failed:
            large.failed = True
            self._observer.failed(large.entry.path, code, sentence)
            self._observer.undelivered += 1
            if self.whole_files:
                self.whole_files.add_broken(large)

    def archive_closed(self, digest: str) -> None:
        """Record the target's SHA-256 of the archive; raises VerifyFailed if it differs."""
        if not agree(bytes.fromhex(digest), bytes.fromhex(self.unproven_archive)):
            raise errors.VerifyFailed("the archive that arrived differs from the one that was sent")
        self.archive_digest, self.unproven_archive = digest, ""

    def _compare_entries(
        self, stream: Stream, flight: ParcelInFlight, sent: SentReply, received: ReceivedReply
    ) -> str:
        """Sort entries into proven, failed and to send again; return one path of the last."""
        if flight.all_proven(sent, received):
            return ""
        require_digests(sent, flight.digest_count)
        require_digests(received, flight.digest_count)
        sorted_out = flight.sort(sent, received)
        self._report_failed(sorted_out.failed)
        if sorted_out.drop:
            stream.order(DISCARD, self._session.aim.list_at_target(pack_entries(sorted_out.drop)))
        return display_path(sorted_out.again[0].path) if sorted_out.again else ""

    def _compare_archive(self, stream: Stream, flight: ParcelInFlight, sent: SentReply) -> str:
        """Accept the sender's digests of the entries; the archive's digest proves them all."""
        if sent.torn:
            code, sentence = next(iter(sent.failures.values()))
            failure = Failure(code, f"{sentence}; so the archive is incomplete")
            raise error_of(stream.source, failure)
        require_digests(sent, flight.digest_count)
        self._report_failed(flight.sort(sent, sent).failed)
        if sent.archive:
            self.unproven_archive = sent.archive
            stream.order(CLOSE_ARCHIVE, path=self._session.aim.archive_name)
        return ""

    def _compare_slices(
        self, flight: ParcelInFlight, sent: SentReply, received: ReceivedReply
    ) -> str:
        large = flight.parcel.large
        assert large
        require_digests(sent, flight.digest_count)
        require_digests(received, flight.digest_count)
        problems = {**received.failures, **sent.failures}
        if problems:
            self.break_off(large, *next(iter(problems.values())))
        elif not all_agree(sent.digests, received.digests, flight.digest_count):
            return display_path(large.entry.path)
        else:
            flight.proven_bytes = flight.parcel.bytes
        return ""

    def _report_failed(self, failed: list[tuple[Entry, Failure]]) -> None:
        for entry, (code, sentence) in failed:
            self._observer.failed(entry.path, code, sentence)
            self._observer.undelivered += entry.kind != FOLDER
