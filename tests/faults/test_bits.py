"""Bits that flip: while packed, while unpacked, and at the target between write and proof."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.carry.in_flight import TRIES
from jobs.states import Status
from tests.faults.here import Here
from tests.faults.spoiling import AT_REST
from tests.rig.lying import Lie
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db

#: The archive holds other bytes than were read, with a checksum that fits them.
PACKED = """
import zlib
_real_add = ZipWriter.add
def _add(self, entry, crc, data):
    if entry.path.endswith("000007.dpx") and not (ONCE and os.path.exists(FLAG)):
        open(FLAG, "w").close()
        data = bytes([data[0] ^ 1]) + bytes(data[1:])
        crc = zlib.crc32(data)
    _real_add(self, entry, crc, data)
ZipWriter.add = _add
"""
#: The target writes down which entries each parcel brings.
TALLY = """
_receive = Receiver.receive
def _counted(self, inlet, head):
    with open(TALLY, "a") as file:
        for entry in unpack_entries(head["blob"]):
            file.write(f"{entry.kind} {entry.path}\\n")
    _receive(self, inlet, head)
Receiver.receive = _counted
"""
ROTS = {
    "at rest": ("target_receiver", AT_REST),
    "packed": ("source_zip_writer", "import os\n" + PACKED),
}


@pytest.mark.fault(28)
@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("strategy", ["zip", "files"])
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("where", ROTS)
def test_a_job_sends_a_corrupt_file_again_and_fails_if_it_stays_corrupt(
    here: Here, lie: Lie, where: str, once: bool, strategy: str, mode: str
) -> None:
    """Fault 28: bit flip in transit, in the destination, or unpacked wrong."""
    if where == "packed" and strategy == "files":
        pytest.skip("nothing is packed")
    build_small(here.source, 30)
    spoilt = next(here.source.rglob("*000007.dpx"))
    spoilt.write_bytes(b"FRAMES of some length")
    flag, tally = here.source.parent.parent / "flag", here.source.parent.parent / "tally"
    module, text = ROTS[where]
    texts = {"target_receiver": TALLY.replace("TALLY", repr(str(tally)))}
    text = text.replace("ONCE", str(once)).replace("FLAG", repr(str(flag)))
    lie(**{**texts, module: texts.get(module, "") + text})

    job = here.run(mode=mode, strategy=strategy, verify="readback")

    brought = Counter(tally.read_text().splitlines())
    again = f"f {spoilt.relative_to(here.source)}"
    assert {entry: times for entry, times in brought.items() if times > 1} == {
        again: 2 if once or where == "packed" else TRIES
    }
    assert sum(entry.startswith("f ") for entry in brought) == 30
    if once or where == "packed":  # What is sent again is not packed.
        here.judge(job)
        return
    assert (job.status, job.error_code) == (Status.FAILED, "CHECKSUM_MISMATCH")
    assert spoilt.name in job.error_message
    here.judge(job, status=Status.FAILED)
    assert here.oracles[job].trees()[0] == here.oracles[job].before
    assert not here.target.exists()


@pytest.mark.fault(28)
@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("point", ["verify", "publish"])
def test_a_job_fails_when_a_staged_file_is_removed_after_its_proof(
    here: Here, point: str, mode: str
) -> None:
    """Fault 28: bit flip in transit, in the destination, or unpacked wrong."""
    build_small(here.source, 30)

    def lose() -> None:
        staged = here.target.glob(".ketter-*.part/a1")
        next(path for tree in staged for path in tree.rglob("*.dpx")).unlink()

    job = here.run(at=point, meddle=lose, mode=mode)

    assert (job.status, job.error_code) == (Status.FAILED, "CHECKSUM_MISMATCH")
    here.judge(job, status=Status.FAILED)
    assert here.oracles[job].trees()[0] == here.oracles[job].before
