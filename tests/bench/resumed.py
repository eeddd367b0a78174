"""What a move costs that goes on from all that had arrived, here and at a commit.

python -m tests.bench.resumed COMMIT [--rounds 7] [--folder /dev/shm]

Everything is staged and proven when the first attempt is interrupted; the second one is
timed: it proves what is there, publishes it and removes the source. Here both ends read it
again (decision 19), at f33cc75 the target alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import trees
from tests.bench.machine import PROJECT

MIB = 1 << 20
#: Name, how many files, of how many bytes.
CASES = (("10,000 files of 8 KiB", 10_000, 8 << 10), ("one file of 1 GiB", 1, 1 << 30))

#: Run below a tree: interrupt a move before it publishes, then time the next attempt (s).
_ATTEMPTS = """
import json, sys, time
import engine
from engine import Endpoint, Mode, Phase, Request, SilentObserver

class Stop(SilentObserver):
    def phase(self, phase):
        if phase is Phase.PUBLISH:
            raise engine.Interrupted("staged")

ends = [Endpoint("/", path.lstrip("/")) for path in sys.argv[1:]]
try:
    engine.run(Request(*ends, transfer_id="bench", mode=Mode.MOVE), Stop())
except engine.Interrupted:
    pass
began = time.monotonic()
report = engine.run(Request(*ends, transfer_id="bench", attempt=2, mode=Mode.MOVE, resume=True))
assert report.bytes_resumed == report.bytes and report.files_removed == report.files
print(json.dumps(time.monotonic() - began))
"""


def main() -> int:
    """Print the medians and their ratio for each case."""
    parser = argparse.ArgumentParser(prog="tests.bench.resumed")
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", default="/dev/shm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ketter-bench-", dir=options.folder) as name:
        folder = Path(name)
        base = trees.lay_out_commit(trees.commit_of(options.commit), folder / "base")
        here = trees.lay_out_folder(PROJECT, folder / "here")
        for title, files, size in CASES:
            times: dict[Path, list[float]] = {base: [], here: []}
            for number in range(options.rounds):
                for tree in (base, here) if number % 2 else (here, base):
                    times[tree].append(_resumed(tree, folder / "data", files, size))
            before, after = (statistics.median(times[tree]) for tree in (base, here))
            print(f"{title}: {before:.2f} s before, {after:.2f} s here: {after / before:.2f} x")
    return 0


def _resumed(tree: Path, data: Path, files: int, size: int) -> float:
    source = data / "a"
    source.mkdir(parents=True)
    block = os.urandom(min(size, MIB))
    for number in range(files):
        with (source / f"{number:05}").open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
    done = subprocess.run(
        [sys.executable, "-c", _ATTEMPTS, str(source), str(data / "b")],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(data)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
