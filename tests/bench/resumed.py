"""What a transfer costs that goes on from all that had arrived, here and at a commit.

python -m tests.bench.resumed COMMIT [--rounds 7] [--folder /dev/shm]

Everything is staged and proven when the first attempt is interrupted; the second one is
timed: it proves what is there, publishes it and, in a move, removes the source. In a move both
ends read it again (decision 19), at f33cc75 the target alone. In a copy nothing is read again that
is on the worker's own record, and else both ends read it (decision 25); at 437ee32 nothing is.
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
from itertools import product
from pathlib import Path

from tests.bench import trees
from tests.bench.machine import PROJECT

MIB = 1 << 20
#: Name, how many files, of how many bytes.
CASES = (("10,000 files of 8 KiB", 10_000, 8 << 10), ("one file of 1 GiB", 1, 1 << 30))

#: What goes on: the mode, and whether the worker has a record (an earlier commit knows of none).
KINDS = {
    "a move": ("move", ""),
    "a copy, on record": ("copy", "record"),
    "a copy, not on record": ("copy", ""),
}

#: Run below a tree: interrupt a transfer before it publishes, then time the next attempt (s).
_ATTEMPTS = """
import json, sys, time
import engine
from engine import Endpoint, Mode, Phase, Request, SilentObserver
from engine.agent.wire import unpack_entries

class Record:
    lists = []
    def add(self, entries, digests):
        self.lists.append((entries, digests))
    def most(self):
        return None

    def known(self):
        for entries, digests in self.lists:
            yield unpack_entries(entries), digests

class Observer(SilentObserver):
    record = Record() if sys.argv[4] else None

class Stop(Observer):
    def phase(self, phase):
        if phase is Phase.PUBLISH:
            raise engine.Interrupted("staged")

ends = [Endpoint("/", path.lstrip("/")) for path in sys.argv[1:3]]
mode = Mode(sys.argv[3])
try:
    engine.run(Request(*ends, transfer_id="bench", mode=mode), Stop())
except engine.Interrupted:
    pass
began = time.monotonic()
again = Request(*ends, transfer_id="bench", attempt=2, mode=mode, resume=True)
report = engine.run(again, Observer())
assert report.bytes_resumed == report.bytes
assert report.files_removed == (report.files if mode is Mode.MOVE else 0)
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
        for (title, files, size), kind in product(CASES, KINDS):
            times: dict[Path, list[float]] = {base: [], here: []}
            for number in range(options.rounds):
                for tree in (base, here) if number % 2 else (here, base):
                    times[tree].append(_resumed(tree, folder / "data", files, size, KINDS[kind]))
            before, after = (statistics.median(times[tree]) for tree in (base, here))
            ratio = f"{after / before:.2f} x"
            print(f"{title}, {kind}: {before:.2f} s before, {after:.2f} s here: {ratio}")
    return 0


def _resumed(tree: Path, data: Path, files: int, size: int, kind: tuple[str, str]) -> float:
    source = data / "a"
    source.mkdir(parents=True)
    block = os.urandom(min(size, MIB))
    for number in range(files):
        with (source / f"{number:05}").open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
    done = subprocess.run(
        [sys.executable, "-c", _ATTEMPTS, str(source), str(data / "b"), *kind],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(data)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
