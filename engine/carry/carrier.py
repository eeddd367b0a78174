"""Carrying parcels: hands them to lanes, compares both ends' digests, re-sends what differs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from engine import errors
from engine.agent.wire import FOLDER, NO_DIGEST, Entry, list_digest, pack_entries, unpack_entries
from engine.answers import is_of_parcel
from engine.hub import Message
from engine.links import Link
from engine.load import Load, Watcher, Whole, count_entries
from engine.plan import LargeFile, Parcel, Planner
from engine.session import Lane, Session
from engine.spool import Spool
from engine.types import ParcelKind, display_path

#: How often an entry is sent whose digests differ, before that is the result.
TRIES = 3
#: What a receiver is told among its parcels.
ORDERS = ("expect", "discard", "complete", "close_archive", "shut_out")
#: With so many bytes or more each stream has a connection of its own: that takes longer to
#: make, and a lost packet then holds up one stream, and not all.
OWN_CONNECTION = 1 << 30
#: Parcels a lane has under way: while one is being settled the next one travels.
DEPTH = 2


class Carrier:
    """Moves all parcels over all lanes; lanes may join while it does."""

    def __init__(
        self,
        session: Session,
        planner: Planner,
        spool: Spool,
        watcher: Watcher,
        streams: int,
        done: tuple[int, int],
    ) -> None:
        self._session, self._planner, self._spool = session, planner, spool
        self._watcher = watcher
        self._loads: dict[Lane, deque[Load]] = {lane: deque() for lane in session.lanes}
        self._lanes: dict[Link, Lane] = {}
        self._opening: dict[Lane, set[Link]] = {}
        #: The ends of lanes that have not said yet that they found the place of the transfer.
        self._attaching: dict[Lane, set[Link]] = {}
        self._waiting: deque[Parcel] = deque()
        self._streams = streams
        self._bytes, self._files = done
        #: Bytes that others have moved of parcels which are not proven yet.
        self._elsewhere = 0
        self._wholes: dict[str, Whole] = {}
        self._archive_digest = ""
        #: The SHA-256 of the archive that was carried, once both ends agree on it.
        self.archive_digest = ""
        #: Files in slices that cannot be delivered.
        self._broken: list[Entry] = []
        #: The share of the rate that each lane was told.
        self._rates: dict[Lane, int] = {}
        #: Entries other than folders that were reported to `failed`.
        self.undelivered = 0
        for lane in session.lanes:
            self._lanes[lane.source] = self._lanes[lane.target] = lane

    @property
    def lanes(self) -> int:
        """How many lanes carry."""
        return len(self._loads)

    def carry(self, parcels: Iterable[Parcel]) -> None:
        """Return when every parcel is proven; raise what stopped it."""
        self._waiting.extend(parcels)
        for lane in list(self._loads):
            self._fill(lane)
        while len(self._loads) + len(self._opening) < min(self._streams, len(self._waiting) + 1):
            lane = self._session.start_lane(self._planner.bytes < OWN_CONNECTION)
            self._lanes[lane.source] = self._lanes[lane.target] = lane
            self._opening[lane] = {lane.source, lane.target}
        self._work()
        self._take_away_broken()
        for lane in self._opening:
            self._drop(lane)
        self._opening.clear()

    def _take_away_broken(self) -> None:
        if self._broken:
            # Only now: a slice that was still on its way would have made the file again.
            self._session.lanes[0].order("discard", pack_entries(self._broken))
            self._broken = []
            self._work()

    def _work(self) -> None:
        while self._is_busy():
            self._hear(*self._session.hub.next())
            self._share_rate()

    def _is_busy(self) -> bool:
        due = self._waiting or self._wholes or self._archive_digest or any(self._loads.values())
        return bool(due) or any(lane.orders for lane in self._loads)

    def _hear(self, link: Link, message: Message) -> None:
        lane = self._lanes.get(link)
        if lane is None:
            return
        if lane in self._opening:
            self._open(lane, link, message)
        elif "lost" in message:
            self._lose(lane, link, message)
        elif "progress" in message:
            for load in self._loads[lane]:
                if load.parcel.number == message["parcel"]:
                    # While it is read back it counts anew from nothing; what came stays counted.
                    came = min(message["progress"], load.parcel.bytes)
                    load.moving_bytes = max(load.moving_bytes, came)
            self._report()
        elif "done" in message:
            self._attaching.get(lane, set()).discard(link)
            if link is lane.target and message.get("op") in ORDERS:
                lane.orders -= 1
            self._answer(lane, link, {**message["done"], "blob": message["blob"]})

    # -- lanes that are being opened ---------------------------------------

    def _open(self, lane: Lane, link: Link, message: Message) -> None:
        waited_for = self._opening[lane]
        if "lost" in message:
            del self._opening[lane]
            self._do_without(lane, message["lost"])
        elif "hello" in message:
            waited_for.discard(link)
            if waited_for:
                return
            del self._opening[lane]
            self._session.welcome(lane)
            self._session.lanes.append(lane)
            self._loads[lane] = deque()
            self._attaching[lane] = {lane.source, lane.target}
            self._fill(lane)  # Right behind: an answer would cost a round trip.

    def _lose(self, lane: Lane, link: Link, message: Message) -> None:
        """A lane is lost, and with it the transfer, unless nothing can have gone over it."""
        if link not in self._attaching.get(lane, ()) or not message["said"]:
            raise message["lost"]
        del self._attaching[lane]
        self._session.lanes.remove(lane)
        self._waiting.extendleft(load.parcel for load in reversed(self._loads.pop(lane)))
        self._do_without(lane, message["lost"])
        for other in list(self._loads):
            self._fill(other)

    def _do_without(self, lane: Lane, why: errors.EngineError) -> None:
        """One lane less is slower, and nothing worse."""
        self._streams = len(self._loads) + len(self._opening)
        self._watcher.warned("STREAM_REFUSED", f"one stream less: {why}")
        self._drop(lane)

    def _drop(self, lane: Lane) -> None:
        """Let a lane go that never carried; what its agents still say is no news."""
        lane.hang_up()
        del self._lanes[lane.source], self._lanes[lane.target]

    # -- parcels -----------------------------------------------------------

    def _fill(self, lane: Lane) -> None:
        loads = self._loads[lane]
        while self._waiting and len(loads) < DEPTH:
            parcel = self._waiting.popleft()
            if parcel.large and parcel.large.failed:
                parcel.large.parcels_left -= 1
                continue
            load = Load(parcel, self._spool.get(parcel.block))
            loads.append(load)
            self._share_rate()
            self._watcher.started(parcel)
            self._send(lane, load)

    def _send(self, lane: Lane, load: Load) -> None:
        request, parcel = self._session.request, load.parcel
        load.sent = load.received = None
        load.tries += 1
        load.moving_bytes = 0
        head: Message = {"kind": load.kind.value, "parcel": parcel.number}
        if load.kind is ParcelKind.RANGE:
            head["slices"] = parcel.slices
        elif load.kind is ParcelKind.ARCHIVE:
            head["name"] = self._session.archive_name
        elif parcel.start and load.tries == 1:
            head["starts"] = {"0": parcel.start}
        theirs = self._renamed(load.blob)
        # The sender passes it on, and cannot make one: nothing else is taken for a parcel.
        lane.order("expect", head=head, digest=list_digest(theirs or load.blob))
        lane.source.tell(
            "send",
            load.blob + theirs,
            theirs=len(theirs),
            head=head,
            drill=request.drill,
            last=load.kind is ParcelKind.ARCHIVE and not self._waiting,
        )

    def _share_rate(self) -> None:
        """Share the rate among the lanes that are at work now; each hears of it at once."""
        limit = self._watcher.bandwidth(self._session.request.bwlimit)
        busy = [lane for lane, loads in self._loads.items() if loads]
        for lane in busy:
            rate = max(1, limit // len(busy)) if limit else 0
            if self._rates.get(lane, 0) != rate:
                self._rates[lane] = rate
                lane.source.tell("rate", rate=rate)

    def _renamed(self, blob: bytes) -> bytes:
        """The list with the one name it has at the target; nothing if it is the same."""
        single = self._session.single
        if not single or single[0].path == single[1]:
            return b""
        return pack_entries([entry._replace(path=single[1]) for entry in unpack_entries(blob)])

    def _answer(self, lane: Lane, link: Link, done: Message) -> None:
        key = "sent" if link is lane.source else "got"
        if key not in done:
            self._told(lane, link, done)
            return
        if not is_of_parcel(done):
            raise errors.AgentFailed(f"the agent on {link.place} answered with half an answer")
        for load in self._loads[lane]:
            if (load.sent if key == "sent" else load.received) is None:
                break
        else:
            raise errors.AgentFailed("an answer came that nothing was asked for")
        if done[key] != load.parcel.number:
            raise errors.AgentFailed("the agents are not in step")
        if key == "sent":
            load.sent = done
        else:
            load.received = done
        if load.sent is not None and load.received is not None:
            self._settle(lane, load)

    def _settle(self, lane: Lane, load: Load) -> None:
        sent, received = load.sent or {}, load.received or {}
        if received["list"] != list_digest(self._renamed(load.blob) or load.blob):
            raise errors.VerifyFailed("the target was told of other entries than were planned")
        if received["refusals"]:
            told = "; ".join(display_path(text) for text in received["refused"])
            self._watcher.warned("XATTRS_NOT_KEPT", f"{received['refusals']} attributes: {told}")
        if load.kind is ParcelKind.RANGE:
            again = self._settle_slices(load, sent, received)
        elif load.kind is ParcelKind.ARCHIVE:
            again = self._settle_archive(lane, load, sent)
        else:
            again = self._settle_entries(lane, load, sent, received)
        if again and load.tries == TRIES:
            raise errors.VerifyFailed(
                f"{again} arrived damaged {TRIES} times: the digests of both ends differ"
            )
        if again:
            self._loads[lane].remove(load)
            self._loads[lane].append(load)
            self._send(lane, load)
        else:
            self._unload(lane, load)

    def _settle_entries(self, lane: Lane, load: Load, sent: Message, received: Message) -> str:
        """Sort the entries into proven, failed and to be sent again; names one of the last."""
        if load.all_proven(sent, received):
            return ""
        sorted_out = load.sort(sent, received)
        for entry, (code, sentence) in sorted_out.failed:
            self._watcher.failed(entry.path, code, sentence)
            self.undelivered += entry.kind != FOLDER
        if sorted_out.drop:
            blob = pack_entries(sorted_out.drop)
            lane.order("discard", self._renamed(blob) or blob)
        return display_path(sorted_out.again[0].path) if sorted_out.again else ""

    def _settle_archive(self, lane: Lane, load: Load, sent: Message) -> str:
        """Take the sender's word for the entries; the digest of the archive proves them all."""
        if sent["torn"]:
            code, sentence = next(iter(sent["errors"].values()))
            raise errors.from_code(code, f"{sentence}; the archive cannot be mended")
        for entry, (code, sentence) in load.sort(sent, sent).failed:
            self._watcher.failed(entry.path, code, sentence)
            self.undelivered += entry.kind != FOLDER
        if sent["archive"]:
            self._archive_digest = sent["archive"]
            lane.order("close_archive", path=self._session.archive_name)
        return ""

    def _settle_slices(self, load: Load, sent: Message, received: Message) -> str:
        large = load.parcel.large
        assert large
        problems = {**received["errors"], **sent["errors"]}
        if problems:
            self._break(large, *next(iter(problems.values())))
        elif sent["blob"] != received["blob"]:
            return display_path(large.entry.path)
        else:
            load.settled_bytes = load.parcel.bytes
        return ""

    def _break(self, large: LargeFile, code: str, sentence: str) -> None:
        """A file in slices cannot be delivered."""
        if not large.failed:
            large.failed = True
            self._watcher.failed(large.entry.path, code, sentence)
            self.undelivered += 1
            self._broken.append(self._session.at_target(large.entry))

    def _unload(self, lane: Lane, load: Load) -> None:
        self._loads[lane].remove(load)
        self._bytes += load.settled_bytes
        # A file that had begun to arrive has more bytes than its parcel.
        known = load.tries == 1 and not load.parcel.start
        self._account(lane, load.parcel, load.all_that_is_proven(), load.blob if known else b"")
        self._report()
        self._fill(lane)

    def _account(
        self, lane: Lane, parcel: Parcel, proven: Sequence[tuple[bytes, bytes]], all_of_it: bytes
    ) -> None:
        """Tell what is proven of a parcel; where that is `all_of_it` its figures are known."""
        for entries, digests in proven:
            known = entries is all_of_it
            files, size = (parcel.files, parcel.bytes) if known else count_entries(entries)
            self._files += files
            self._watcher.verified(parcel, entries, digests, (files, size))
        large = parcel.large
        if large:
            self._watcher.verified(parcel, b"", b"", (0, 0))
            large.parcels_left -= 1
            if not large.parcels_left and not large.failed:
                self._complete(lane, large, parcel)

    # -- what is proven as a whole -----------------------------------------

    def _complete(self, lane: Lane, large: LargeFile, parcel: Parcel) -> None:
        """Have both ends tell the digest of a whole file, now that all its slices are there."""
        blob = self._spool.get(parcel.block)
        path = large.entry.path
        self._wholes[path] = Whole(large, parcel)
        lane.source.tell("hash", blob, at_source=True, whole=path)
        lane.order("complete", self._renamed(blob) or blob, whole=path)

    def _told(self, lane: Lane, link: Link, done: Message) -> None:
        """Take in what else was asked: our place at the target, the digest of a whole."""
        of_target = link is lane.target
        if "fresh" in done and of_target and link is self._session.target:
            self._session.staged_as(done)
        elif "archive" in done and of_target:
            if done["archive"] != self._archive_digest:
                raise errors.VerifyFailed("the archive that arrived is not the one that was sent")
            self.archive_digest, self._archive_digest = self._archive_digest, ""
        elif "whole" in done and done["whole"] in self._wholes:
            whole = self._wholes[done["whole"]]
            whole.digests[of_target] = done["blob"]
            if len(whole.digests) == 2:
                del self._wholes[done["whole"]]
                self._prove_whole(lane, whole)

    def _prove_whole(self, lane: Lane, whole: Whole) -> None:
        large, one, other = whole.large, whole.digests[False], whole.digests[True]
        if one == other != NO_DIGEST:
            self._files += 1
            entries = self._spool.get(whole.parcel.block)
            self._watcher.verified(whole.parcel, entries, one, (1, large.entry.size))
            self._report()
            return
        if large.tries == TRIES:
            raise errors.VerifyFailed(
                f"{display_path(large.entry.path)} arrived damaged {TRIES} times: "
                "the digests of both ends differ"
            )
        large.tries += 1
        self._bytes -= large.entry.size
        self._waiting.extend(self._planner.slice_again(large))
        self._fill(lane)

    def _report(self) -> None:
        moving = sum(
            max(load.settled_bytes, load.moving_bytes)
            for loads in self._loads.values()
            for load in loads
        )
        self._watcher.moved(self._bytes + moving + self._elsewhere, self._files)
