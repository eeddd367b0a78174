"""Ketter against what people use today, and how it grows. See README.md beside this file.

python -m tests.bench [--rounds 5] [--scale 1.0] [--folder F] [--cases small,large]
python -m tests.bench growth [--files 10000,100000] [--sizes 1,4] [--folder F]
python -m tests.bench against COMMIT [--case small] [--quick] [--folder F]

All take --json FILE, the first two --plot FILE.svg.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import against_report, growth_report, plot, report, trees
from tests.bench.against import BASE, HERE, QUICK_SCALE, ROUND_SECONDS, Against
from tests.bench.cases import CASES, Case
from tests.bench.data import GIB
from tests.bench.growth import Growth, Point
from tests.bench.machine import PROJECT, describe
from tests.bench.measure import Bench, fresh_folder, log
from tests.bench.paired import Rules
from tests.bench.run import State
from tests.bench.summary import Summary, verdicts
from tests.bench.tools import TITLES, find


def main(arguments: list[str]) -> int:
    """Measure what was asked for; 1 if something did not arrive as it should have."""
    # Ended by a signal, it still clears away its data and its sshd.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # As Python does by itself with the first transfer, unless the environment forbids it.
    compileall.compile_dir(str(PROJECT / "engine"), quiet=1)
    if arguments[:1] == ["growth"]:
        return _growth(_growth_options(arguments[1:]))
    if arguments[:1] == ["against"]:
        return _against(_against_options(arguments[1:]))
    return _compare(_compare_options(arguments))


def _compare(options: argparse.Namespace) -> int:
    found, missing = find()
    used = {peer for case in options.cases for peer in case.peers}
    missing = {name: why for name, why in missing.items() if name in used}
    for name, why in missing.items():
        log(f"missing: {TITLES[name]} ({why})")
    machine = describe(options.folder)
    with fresh_folder(options.folder) as folder:
        bench = Bench(
            cases=options.cases,
            folder=folder,
            scale=options.scale,
            limit=options.limit,
            tools=found,
            rounds=options.rounds,
        )
        with contextlib.closing(bench.measure()) as runs:
            for run in runs:
                ended = f"{run.seconds:.2f} s" if run.state is State.DONE else run.state
                log(f"round {run.round + 1}  {run.case}  {run.tool}  {ended}  {run.note}")
                # Every time: an hour of measuring is not lost with its last minute.
                _write(options.json, report.as_json(bench, machine, missing))
    summary = Summary(bench.runs, bench.limit, missing)
    print(report.as_markdown(bench, machine, missing))
    if options.plot:
        of_all = verdicts(summary, bench.cases)
        drawn = plot.bars(of_all, "Ketter against its peers", plot.machine_line(machine))
        options.plot.write_text(drawn, "utf-8")
    return 1 if summary.troubles() else 0


def _growth(options: argparse.Namespace) -> int:
    machine = describe(options.folder)
    points: list[Point] = []
    with fresh_folder(options.folder) as folder:
        growing = Growth(folder, options.files, options.sizes, options.rounds)
        with contextlib.closing(growing.measure()) as measured:
            for point in measured:
                points.append(point)
                told = point.skipped or point.trouble or point.seconds
                log(f"{point.series}  {point.way}  {point.files}  {point.bytes}  {told}")
                _write(options.json, growth_report.as_json(points, machine, options.rounds))
    print(growth_report.as_markdown(points, machine, options.rounds))
    if options.plot:
        options.plot.write_text(growth_report.drawing(points, machine), "utf-8")
    return 1 if any(point.trouble for point in points) else 0


def _against(options: argparse.Namespace) -> int:
    base = trees.commit_of(options.commit)
    machine = describe(options.folder)
    allowed = options.percent / 100
    with fresh_folder(options.folder) as folder:
        against = Against(
            cases=options.cases,
            folder=folder,
            scale=options.scale,
            limit=options.limit,
            trees={
                BASE: trees.lay_out_commit(base, folder / BASE),
                HERE: trees.lay_out_folder(PROJECT, folder / HERE),
            },
            round_seconds=0.0 if options.quick else ROUND_SECONDS,
            rules=Rules(1 + allowed, allowed, options.rounds, max(options.rounds, options.most)),
        )
        with contextlib.closing(against.measure(sys.executable)) as trials:
            for trial in trials:
                log(
                    f"round {trial.round}  {trial.case}  {trial.tree}  {trial.state}  "
                    f"{trial.seconds:.2f} s, {trial.processor:.2f} s of processors  {trial.note}"
                )
                _write(options.json, against_report.as_json(against, machine, base))
    print(against_report.as_markdown(against, machine, base))
    return against_report.status([against.outcome(case) for case in options.cases])


def _compare_options(arguments: list[str]) -> argparse.Namespace:
    parser = _parser("python -m tests.bench", rounds=5, draws=True)
    add = parser.add_argument
    add("--scale", type=float, default=1.0, help="1 (default) is what the names of the cases tell")
    add(
        "--cases",
        type=_cases,
        default=list(CASES.values()),
        help=f"some of {','.join(CASES)} (default: all)",
    )
    add("--limit", type=float, default=60.0, help="seconds until a tool is stopped (default: 60)")
    return parser.parse_args(arguments)


def _against_options(arguments: list[str]) -> argparse.Namespace:
    rules = Rules()
    parser = _parser("python -m tests.bench against", rules.first, draws=False)
    add = parser.add_argument
    add("commit", help="the base: a commit that git knows in this checkout")
    add(
        "--case",
        dest="cases",
        type=_cases,
        action="extend",
        metavar="NAME",
        help=f"only this one, or several with commas; of {','.join(CASES)} (default: all)",
    )
    add("--most", type=int, default=rules.most, help="rounds of a case whose spread is wide")
    add(
        "--percent",
        type=float,
        default=(rules.limit - 1) * 100,
        help="what is slower, and which spread is too wide (default: 3)",
    )
    add("--scale", type=float, help="1 (default) is what the names of the cases tell")
    add("--quick", action="store_true", help="a look: --scale 0.1, no case twice in a round")
    add("--limit", type=float, default=300.0, help="seconds until a run is stopped (default: 300)")
    options = parser.parse_args(arguments)
    options.cases = options.cases or list(CASES.values())
    options.scale = options.scale or (QUICK_SCALE if options.quick else 1.0)
    return options


def _growth_options(arguments: list[str]) -> argparse.Namespace:
    parser = _parser("python -m tests.bench growth", rounds=3, draws=True)
    parser.add_argument(
        "--files",
        type=_Numbers(1),
        default=[10_000, 100_000, 1_000_000],
        help="how many tiny files (default: 10000,100000,1000000)",
    )
    parser.add_argument(
        "--sizes",
        type=_Numbers(GIB),
        default=[GIB, 4 * GIB, 16 * GIB],
        help="GiB of one file (default: 1,4,16)",
    )
    return parser.parse_args(arguments)


def _parser(name: str, rounds: int, draws: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--rounds", type=int, default=rounds, help=f"how often (default: {rounds})")
    add(
        "--folder",
        type=_folder,
        default=_usual_folder(),
        help=f"where the data is made (default: {_usual_folder()})",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures here")
    if draws:
        add("--plot", type=Path, metavar="FILE.svg", help="draw them here")
    return parser


def _usual_folder() -> Path:
    """Memory if there is some to write to: disks are what varies most between two rounds."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _folder(text: str) -> Path:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text).resolve()


def _cases(text: str) -> list[Case]:
    names = text.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(
            f"no case {', '.join(unknown)}; there are {', '.join(CASES)}"
        )
    return [CASES[name] for name in names]


class _Numbers:
    """Reads `1,4,16` as numbers of a unit; nothing at all is no number."""

    def __init__(self, unit: int) -> None:
        self._unit = unit

    def __call__(self, text: str) -> list[int]:
        try:
            return [round(float(part) * self._unit) for part in text.split(",") if part]
        except ValueError:
            raise argparse.ArgumentTypeError("numbers with commas between them") from None


def _write(path: Path | None, figures: dict[str, Any]) -> None:
    """Replace the file at once: whoever reads it finds it whole."""
    if path:
        draft = path.with_name(path.name + ".part")
        draft.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
        draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
