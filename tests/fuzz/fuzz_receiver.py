"""Fuzz the unpacker: frames of a sender into a target's agent. See README.md."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped] # in a venv of its own, see README.md

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["engine"]):
    import engine.agent.target.commands  # noqa: F401 - with the counters in it

from tests.fuzz.corpus import IS_FRAMED, PUBLISHED, framed
from tests.rig import hostile


def one(data: bytes) -> None:
    """Feed one input: the stream, the next attempt's look at what it left, and publishing that."""
    how, stream = data[0] if data else 0, data[1:]
    root = Path(tempfile.mkdtemp(prefix="ketter-fuzz-", dir=FOLDER))
    try:
        place = hostile.Place(root, xattrs=True)
        try:
            place.take(framed(stream) if how & IS_FRAMED else stream)
            place.untouched()
            place.take_up()
            place.untouched()
            if how & PUBLISHED:
                place.publish()
                place.canary_untouched()
        finally:
            place.close()
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
