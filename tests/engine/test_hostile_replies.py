"""Agents whose replies are well formed and false: too few, too many, twice, or proof of nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict, Phase, Request, SilentObserver, Strategy, Verify, leftovers
from engine.agent.wire import NO_DIGEST, AgentError, pack_entries
from engine.carry.in_flight import ParcelInFlight
from engine.carry.whole_files import WholeFile
from engine.connect.agent_process import AgentProcess
from engine.loans import Location
from engine.parcels.builder import LargeFile, Parcel
from engine.parcels.spool import Block
from engine.proof import manifest as manifests
from engine.proof.verify import verify
from engine.protocol.fields import Failure
from engine.protocol.replies import ReceivedReply, SentReply
from engine.types import ParcelKind
from tests.rig import hostile
from tests.rig.lying import Lie, failed_agent, reply_to, twist
from tests.rig.transfers import Run, endpoint

PROVEN = hostile.sha(b"report")


@pytest.fixture
def same(tree: Path) -> Path:
    """Both ends have the same file already."""
    for end in "ab":
        (tree / end / "report").write_bytes(b"report")
        os.utime(tree / end / "report", ns=(5, 5))
    return tree


# -- how many ------------------------------------------------------------------

#: A reply about fewer or more entries than the worker asked about: the command, and the lie.
MISCOUNTED = {
    "no state": ("compare", 'done["states"] = ""'),
    "a state too few": ("compare", 'done["states"] = done["states"][:-1]'),
    "a state too many": ("compare", 'done["states"] += "s"'),
    "no digest": ("hash", 'blob, done["ids"] = b"", []'),
    "a digest too few": ("hash", "blob = blob[:-32]"),
    "a digest too many": ("hash", 'blob += bytes(32); done["ids"].append([])'),
    "an id too few": ("hash", 'done["ids"] = []'),
    "an entry gone that is not in the list": ("hash", 'done["gone"] = [1]'),
}


@pytest.mark.parametrize("sort", MISCOUNTED)
def test_a_reply_about_another_number_of_entries_ends_the_move(
    same: Path, run: Run, lie: Lie, sort: str
) -> None:
    lie(inspect=reply_to(*MISCOUNTED[sort]))

    assert "protocol error" in failed_agent(lambda: run(mode=Mode.MOVE))

    assert (same / "a" / "report").exists()


@pytest.mark.parametrize("end", ["source_commands", "target_compare"])
def test_one_end_that_counts_wrong_is_enough(same: Path, run: Run, lie: Lie, end: str) -> None:
    lie(**{end: reply_to("hash", 'blob += bytes(32); done["ids"].append([])')})

    assert "number of entries" in failed_agent(lambda: run(mode=Mode.MOVE))

    assert (same / "a" / "report").exists()


def test_a_state_of_no_meaning_is_the_agents_failure(same: Path, run: Run, lie: Lie) -> None:
    lie(target_compare=reply_to("compare", 'done["states"] = "z" * len(done["states"])'))

    assert "states" in failed_agent(run)


def test_the_state_of_a_folder_says_nothing_of_a_file(same: Path, run: Run, lie: Lie) -> None:
    lie(target_compare=reply_to("compare", 'done["states"] = "u" * len(done["states"])'))

    assert "state of a folder" in failed_agent(run)


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_report_of_a_parcel_has_a_digest_for_each_entry(
    tree: Path, run: Run, lie: Lie, end: str
) -> None:
    op = {"source": "send", "target": "receive"}[end]
    lie(**{f"{end}_commands": reply_to(op, "blob += bytes(32)")})

    assert "number of entries" in failed_agent(lambda: run(strategy=Strategy.FILES))


@pytest.fixture
def delivered(tree: Path, run: Run) -> Path:
    """A manifest of what was delivered to b."""

    class Keep(SilentObserver):
        wants_manifests = True

        def parcel(self, report: engine.ParcelReport) -> None:
            if report.manifest:
                (tree / "manifest").write_bytes(report.manifest)

    run(Keep())
    assert [line["path"] for line in manifests.read((tree / "manifest").read_bytes())]
    return tree


def test_a_verification_is_not_content_with_fewer_digests(delivered: Path, lie: Lie) -> None:
    lie(inspect=reply_to("hash", 'blob, done["ids"] = b"", []'))

    failed_agent(lambda: verify(delivered / "manifest", endpoint(delivered / "b")))


def test_a_dry_run_says_that_the_agent_failed(same: Path, lie: Lie) -> None:
    lie(target_compare=reply_to("compare", 'done["states"] = ""'))
    request = Request(endpoint(same / "a"), endpoint(same / "b"), "test")

    failed_agent(lambda: engine.dry_run(request))


#: What runs without a transfer, or beside one.
WITHOUT_A_TRANSFER: dict[str, Callable[[Path, Request], object]] = {
    "test a connection": lambda root, request: engine.probe(request.target),
    "discard": lambda root, request: engine.discard(request),
    "clean": lambda root, request: leftovers.clean(request.target, {}, 1, lambda: None),
    "verify": lambda root, request: verify(root / "manifest", request.target),
    "help": lambda root, request: engine.Helper(
        request, Location("a", "b", (), "", (1, 2), ""), "h1", SilentObserver()
    ),
}


@pytest.mark.parametrize("what", WITHOUT_A_TRANSFER)
def test_a_malformed_message_is_the_agents_failure_there_too(
    tree: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def greet(agent: AgentProcess) -> None:
        raise AgentError("AGENT_FAILED", "protocol error: it greets with nonsense")

    monkeypatch.setattr(AgentProcess, "greet", greet)
    request = Request(endpoint(tree / "a"), endpoint(tree / "b"), "test")

    assert "nonsense" in failed_agent(lambda: WITHOUT_A_TRANSFER[what](tree, request))


# -- a digest that says there is none ------------------------------------------


def test_no_digest_at_both_ends_does_not_prove_what_is_there(
    same: Path, run: Run, lie: Lie
) -> None:
    lie(inspect=reply_to("hash", "blob = bytes(len(blob))"))

    with pytest.raises(engine.TargetExists):
        run(mode=Mode.MOVE)

    assert (same / "a" / "report").exists()


@pytest.mark.parametrize("digest", [NO_DIGEST, b"", PROVEN[:31]])
def test_a_missing_digest_proves_no_file_in_slices(digest: bytes) -> None:
    whole = WholeFile(LargeFile(hostile.entry("large")), flight(1).parcel)
    whole.digests = {False: digest, True: digest}
    assert not whole.is_proven
    whole.digests = {False: PROVEN, True: PROVEN}
    assert whole.is_proven


def flight(entries: int, kind: ParcelKind = ParcelKind.FILE) -> ParcelInFlight:
    """A parcel on its way."""
    blob = pack_entries(hostile.entry(f"f{number}") for number in range(entries))
    return ParcelInFlight(Parcel(1, kind, entries, 0, Block(0, len(blob))), blob)


@pytest.mark.parametrize("digests", [NO_DIGEST * 2, PROVEN + NO_DIGEST, NO_DIGEST + PROVEN])
def test_no_digest_at_both_ends_proves_no_entry_of_a_parcel(digests: bytes) -> None:
    parcel = flight(2)
    sent, received = SentReply(1, {}, False, "", digests), ReceivedReply(1, "", {}, (), 0, digests)

    assert not parcel.all_proven(sent, received)
    again = parcel.sort(sent, received).again

    assert len(again) == digests.count(NO_DIGEST)


def test_a_target_that_reports_a_failure_has_proven_nothing() -> None:
    parcel = flight(1)
    sent = SentReply(1, {}, False, "", PROVEN)
    failed = {0: Failure("IO_ERROR", "x")}

    assert not parcel.all_proven(sent, ReceivedReply(1, "", failed, (), 0, PROVEN))


# -- what a journal at the target says -----------------------------------------


class Stopped(SilentObserver):
    """Interrupts a transfer before it publishes: all is staged, and in the journal."""

    def phase(self, phase: Phase) -> None:
        if phase is Phase.PUBLISH:
            raise engine.Interrupted("enough for today")


@pytest.fixture
def staged(tree: Path, run: Run) -> Path:
    """All of the source is staged at the target."""
    (tree / "a" / "second").write_bytes(b"second")
    with pytest.raises(engine.Interrupted):
        run(Stopped(), resume=True, verify=Verify.STREAM)
    return tree


def test_a_journal_without_digests_proves_nothing(staged: Path, run: Run, lie: Lie) -> None:
    """At level stream a copy believes a journal: but only a digest."""
    size = 'body["list"]'
    lie(target_commands=twist('"held" in body', f"blob = blob[:{size}] + bytes(len(blob)-{size})"))

    report = run(resume=True, verify=Verify.STREAM)

    assert (report.status, report.files, report.files_resumed) == ("done", 2, 0)
    assert (staged / "b" / "report").read_bytes() == b"report"


def test_an_honest_journal_is_believed(staged: Path, run: Run) -> None:
    assert run(resume=True, verify=Verify.STREAM).files_resumed == 2


@pytest.mark.parametrize("change", ["blob = blob[:-32]", "blob += bytes(32)"])
def test_a_journal_has_a_digest_for_each_entry(
    staged: Path, run: Run, lie: Lie, change: str
) -> None:
    lie(target_commands=twist('"held" in body', change))

    assert "number of entries" in failed_agent(lambda: run(resume=True, verify=Verify.STREAM))


@pytest.mark.parametrize("change", ["blob = blob[:-32]", 'blob = b""', "blob += bytes(32)"])
def test_a_readback_has_a_digest_for_each_entry(
    staged: Path, run: Run, lie: Lie, change: str
) -> None:
    lie(target_commands=reply_to("check", change))

    assert "number of entries" in failed_agent(lambda: run(resume=True, verify=Verify.READBACK))


def test_an_archive_without_digests_lets_the_source_remove_nothing(
    tree: Path, run: Run, lie: Lie
) -> None:
    """Neither the target's journal nor the source has a digest: that is no agreement."""

    class Cut(SilentObserver):
        def phase(self, phase: Phase) -> None:
            if phase is Phase.REMOVE_SOURCE:
                raise engine.ConnectionLost("the line was cut")

    options = {"mode": Mode.MOVE, "strategy": Strategy.ARCHIVE, "resume": True}
    with pytest.raises(engine.ConnectionLost):
        run(Cut(), **options)
    condition = '"held" in body or body.get("op") == "hash"'
    lie(
        inspect=twist(
            condition, 'at = body.get("list", 0); blob = blob[:at] + bytes(len(blob) - at)'
        )
    )

    report = run(attempt=2, **options)

    assert (report.status, report.files_removed) == ("partial", 0)
    assert (tree / "a" / "report").exists()


def test_the_conflict_policy_decides_about_files_that_are_not_proven_equal(
    same: Path, run: Run, lie: Lie
) -> None:
    lie(inspect=reply_to("hash", "blob = bytes(len(blob))"))

    report = run(mode=Mode.MOVE, on_conflict=OnConflict.SKIP)

    assert (report.files_removed, (same / "a" / "report").exists()) == (0, True)
