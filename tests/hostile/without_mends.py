"""Takes the mends of findings out, one by one, and expects that the test named for each fails.

    python -m tests.hostile.without_mends            all of them
    python -m tests.hostile.without_mends H8 W18     these findings

The changes are made in a copy of the checkout, in the temporary folder. Prints a table; the status
is 1 if a test passed without its mend.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.mends import MENDS, Mend
from tests.rig.project import PROJECT

#: Seconds in which tests have to end, with the start of their servers.
LIMIT_SECONDS = 1200
#: What a copy does without.
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "var", "__pycache__", ".*_cache")
#: pytest's status if all tests passed, and if some failed.
_PASSED, _FAILED = 0, 1


def main(findings: Sequence[str]) -> int:
    """Print the table; return the exit status."""
    chosen = [mend for mend in MENDS if not findings or mend.finding in findings]
    print("| finding | mend taken out of | test | result | seconds |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    results = []
    with tempfile.TemporaryDirectory(prefix="ketter-mends-") as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder) / "ketter"
        shutil.copytree(PROJECT, copy, ignore=_LEFT_OUT)
        shutil.copytree(PROJECT / ".venv", copy / ".venv", symlinks=True)
        if not with_all_of_them(copy, chosen):
            return 2
        for mend in chosen:
            began = time.monotonic()
            results.append(result := without(copy, mend))
            took = time.monotonic() - began
            words = (mend.finding, mend.file, mend.test, result)
            print(f"| {' | '.join(words)} | {took:.0f} |", flush=True)
    return int(any(result != "fails, as it should" for result in results))


def with_all_of_them(copy: Path, mends: Sequence[Mend]) -> bool:
    """Run the tests in the copy as it is; False unless all pass and none is skipped."""
    ended = run(copy, *sorted({mend.test for mend in mends}))
    if ended.returncode == _PASSED and " skipped" not in ended.stdout:
        return True
    print("with all mends in place these tests do not pass, so nothing is shown:", file=sys.stderr)
    print(ended.stdout[-5000:], ended.stderr[-2000:], file=sys.stderr)
    return False


def without(copy: Path, mend: Mend) -> str:
    """Take one mend out of the copy, run its test there, and put the mend back."""
    file = copy / mend.file
    text = file.read_text("utf-8")
    assert text.count(mend.old) == 1, f"{mend.file} has changed: see {mend.finding} in mends.py"
    file.write_text(text.replace(mend.old, mend.new), "utf-8")
    try:
        status = run(copy, mend.test).returncode
    finally:
        file.write_text(text, "utf-8")
    return {_PASSED: "PASSES WITHOUT ITS MEND", _FAILED: "fails, as it should"}.get(
        status, f"COULD NOT RUN (pytest's status {status})"
    )


def run(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy."""
    python = copy / ".venv" / "bin" / "python"
    line = [str(python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--lane", "nightly"]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KETTER_", "PYTEST_"))
    }
    for name in ("DATABASE_URL", "REDIS_URL"):
        kept.pop(name, None)
    return subprocess.run(
        [*line, *(f"tests/{test}" for test in tests)],
        cwd=copy,
        env=kept,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
