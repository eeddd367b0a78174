"""The engine's command line: `python -m engine.cli --from A --to B --mode copy`.

    python -m engine.cli --from A --to B [options]     transfer; --help lists them
    python -m engine.cli verify --manifest M --at B    read B again, compare it with a manifest

Exit status: 0 done, 1 failed, 2 wrong request, 3 partial, 4 verification
failed, 5 no connection (host, host key, credential, Python), 6 no space,
130 cancelled. With --json the result is one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine import errors, transfer
from engine.cli import arguments
from engine.cli.delivery import ManifestFile
from engine.cli.output import (
    OUTPUT_MAY_FAIL,
    is_plain_terminal,
    prepare_streams,
    take_bytes_as_they_are,
)
from engine.cli.places import place
from engine.cli.proof_record import RecordFile
from engine.cli.stop import Stop
from engine.observer import SilentObserver
from engine.types import Report

if TYPE_CHECKING:
    from engine.proof.verify import Verdict

EXIT_PARTIAL, EXIT_DIFFERENT = 3, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command in `argv`; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["verify"]:
        return _verify(arguments.verify_parser().parse_args(words[1:]))
    about, _, rest = (__doc__ or "").partition("\n\n")
    return _transfer(arguments.transfer_parser(about, rest).parse_args(words))


def _transfer(chosen: argparse.Namespace) -> int:
    stop = Stop(chosen.resume)
    stop.arm()
    try:
        request = arguments.request(chosen)
        delivery = ManifestFile("" if chosen.dry_run else chosen.manifest, request.mode, stop)
        record = None if chosen.dry_run else RecordFile(request)
        observer = _observer(chosen.json, stop, record, delivery)
        ended_by: BaseException | None = None
        try:
            if chosen.dry_run:
                plan = transfer.dry_run(request, observer)
                result, status = {"status": "planned", "plan": plan}, 0
            else:
                report = transfer.run(request, observer)
                delivery.compare(report)
                result = _result(report)
                _note_made(report.folders_made)
                status = 0 if report.status == "done" else EXIT_PARTIAL
        except BaseException as error:
            ended_by = error
            raise
        finally:
            stop.disarm()
            observer.end()
            delivery.end()
            if record:
                record.end(ended_by)
    except errors.EngineError as error:
        return _show_error(error, chosen.json)
    try:
        _show(result, chosen.json)
    except OSError as error:
        _report_lost_output(error)
    return status


def _verify(chosen: argparse.Namespace) -> int:
    from pathlib import Path

    from engine.proof.verify import verify

    try:
        verdict = verify(Path(chosen.manifest), place(chosen.at, chosen))
    except errors.EngineError as error:
        return _show_error(error, chosen.json)
    try:
        _show_verdict(verdict, chosen.json)
    except OSError as error:
        _report_lost_output(error)
    return EXIT_DIFFERENT if verdict.different else 0


def _show_verdict(verdict: Verdict, as_json: bool) -> None:
    status = "different" if verdict.different else "same"
    if as_json:
        differences = [difference._asdict() for difference in verdict.differences]
        print(json.dumps({"status": status, **vars(verdict), "differences": differences}))
    else:
        for difference in verdict.differences:
            print(f"different: {difference.message} ({difference.code})")
        print(
            f"{status.upper()}: {verdict.entries} entries, {verdict.bytes:,} bytes read, "
            f"{verdict.different} different"
        )


class _PlainObserver(SilentObserver):
    """Prints warnings; shows no progress."""

    def __init__(self, stop: Stop, record: RecordFile | None, delivery: ManifestFile) -> None:
        self._stop, self._record = stop, record
        self.record, self.delivery = record, delivery

    def checkpoint(self) -> None:
        """Stop the transfer if a signal requested that; write the record if that is due."""
        self._stop.check()
        if self._record:
            self._record.write_if_due()

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Print warnings and errors."""
        if level != "info":
            with OUTPUT_MAY_FAIL:
                print(f"{level}: {message} ({code})", file=sys.stderr)

    def end(self) -> None:
        """Do nothing: no progress was drawn."""


def _observer(as_json: bool, stop: Stop, record: RecordFile | None, delivery: ManifestFile) -> Any:
    plain = _PlainObserver(stop, record, delivery)
    observer: SilentObserver = plain
    if sys.stderr.isatty() and not as_json and not is_plain_terminal():
        from engine.cli.progress_bar import ProgressBar

        observer = ProgressBar(sys.stderr, plain)
    if record:
        record.on_event = observer.event
    delivery.report_to(observer)
    return observer


def _note_made(folders: Sequence[str]) -> None:
    """Print which folders were made above the target: its path may have been mistyped."""
    if len(folders) > 1:
        with OUTPUT_MAY_FAIL:
            print(f"note: folders were made at the target: {', '.join(folders)}", file=sys.stderr)


def _result(report: Report) -> dict[str, Any]:
    failures = [failure._asdict() for failure in report.failures]
    return {**report._asdict(), "failures": failures, "rate": report.rate}


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    if result["status"] == "planned":
        _show_plan(result["plan"])
        return
    for failure in result["failures"]:
        print(f"failed: {failure['message']} ({failure['code']})")
    if result["failures_total"] > len(result["failures"]):
        print(f"and {result['failures_total'] - len(result['failures'])} more failed")
    resumed = ""
    if result["bytes_resumed"]:
        resumed = f"{result['bytes_resumed']:,} bytes had arrived before, "
    print(
        f"{result['status'].upper()}: {result['files']} files, {result['bytes']:,} bytes in "
        f"{result['seconds']:.1f} s ({result['rate'] / 1e6:.1f} MB/s), {resumed}"
        f"{result['files_skipped']} there already, "
        f"{result['files_removed']} removed at the source, verified: {result['verify']}"
    )


def _show_plan(plan: dict[str, Any]) -> None:
    parcels = ", ".join(f"{n} {kind}" for kind, n in plan["parcels"].items()) or "none"
    inodes = f", {plan['free_inodes']:,} inodes" if plan["free_inodes"] >= 0 else ""
    print(
        f"{plan['files']} files, {plan['folders']} folders, {plan['bytes']:,} bytes to send; "
        f"{plan['skipped']} there already; parcels: {parcels} ({plan['why']}); "
        f"{plan['streams']} streams"
    )
    free = f"{plan['free_bytes']:,} bytes" if plan["free_bytes"] >= 0 else "not known"
    print(f"free at the target: {free}{inodes}")
    if plan["mounts"]:
        print(f"other file systems begin at the target at: {', '.join(plan['mounts'])}")
    if plan["replaced"]:
        print(f"{plan['replaced']} would replace, or stand beside, entries at the target")
    if plan["conflicts"]:
        names = ", ".join(plan["conflict_names"])
        print(f"{plan['conflicts']} conflict with entries at the target: {names}")
    for failure in plan["failures"]:
        print(f"not possible: {failure['message']} ({failure['code']})")


def _show_error(error: errors.EngineError, as_json: bool) -> int:
    with OUTPUT_MAY_FAIL:
        if as_json:
            result = {"status": "failed", "code": error.code, "message": str(error)}
            print(json.dumps({**result, "kept": error.kept}))
        else:
            print(f"{error.code}: {error}", file=sys.stderr)
            for note in getattr(error, "__notes__", ()):
                print(note, file=sys.stderr)
            if error.kept:
                print("run the same command with --resume to go on", file=sys.stderr)
    return error.exit_code


def _run() -> int:
    """Run the command; a result that cannot be written does not change how it ended."""
    take_bytes_as_they_are()
    prepare_streams()
    try:
        status = main()
    except KeyboardInterrupt:  # `verify` changes nothing that would have to be put in order.
        return 130
    except SystemExit as ended:  # --help, or arguments that cannot be parsed.
        status = ended.code if isinstance(ended.code, int) else 1
    with OUTPUT_MAY_FAIL:
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except OSError as error:
        _report_lost_output(error)
    return status


def _report_lost_output(error: OSError) -> None:
    with OUTPUT_MAY_FAIL:
        print(f"the result could not be written: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    status = _run()
    os._exit(status)  # All output is written; tearing down the interpreter only takes time.
