"""The engine's command line: `python -m engine.cli --from A --to B --mode copy`.

    python -m engine.cli --from A --to B [options]     transfer; --help lists them
    python -m engine.cli verify --manifest M --at B    read B again, compare it with a manifest

Exit status: 0 done, 1 failed, 2 wrong request, 3 partial, 4 verification
failed, 5 no connection (host, host key, credential, Python), 6 no space,
130 cancelled. With --json the result is one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

from engine import errors, transfer
from engine.cli import arguments
from engine.cli.output import OUTPUT_MAY_FAIL
from engine.cli.proof_record import RecordFile
from engine.observer import SilentObserver
from engine.types import ParcelReport, ParcelState, Report

EXIT_PARTIAL, EXIT_DIFFERENT = 3, 4
#: Seconds after a signal in which a further one waits for the clean-up.
CLEANING_SECONDS = 35.0


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command in `argv`; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["verify"]:
        return _verify(arguments.verify_parser().parse_args(words[1:]))
    about, _, rest = (__doc__ or "").partition("\n\n")
    return _transfer(arguments.transfer_parser(about, rest).parse_args(words))


def _transfer(chosen: argparse.Namespace) -> int:
    stop = _Stop(chosen.resume)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.on_signal)
    try:
        request = arguments.request(chosen)
        record = None if chosen.dry_run else RecordFile(request)
        observer = _observer(chosen, stop, record)
        ended_by: BaseException | None = None
        try:
            if chosen.dry_run:
                plan = transfer.dry_run(request, observer)
                result, status = {"status": "planned", "plan": plan}, 0
            else:
                report = transfer.run(request, observer)
                result = _result(report)
                status = 0 if report.status == "done" else EXIT_PARTIAL
        except BaseException as error:
            ended_by = error
            raise
        finally:
            stop.disarm()
            observer.end()
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
        verdict = verify(Path(chosen.manifest), arguments.place(chosen.at, chosen))
    except errors.EngineError as error:
        return _show_error(error, chosen.json)
    status = "different" if verdict.different else "same"
    if chosen.json:
        differences = [difference._asdict() for difference in verdict.differences]
        print(json.dumps({"status": status, **vars(verdict), "differences": differences}))
    else:
        for difference in verdict.differences:
            print(f"different: {difference.message} ({difference.code})")
        print(
            f"{status.upper()}: {verdict.entries} entries, {verdict.bytes:,} bytes read, "
            f"{verdict.different} different"
        )
    return EXIT_DIFFERENT if verdict.different else 0


class _PlainObserver(SilentObserver):
    """Writes the manifest, if one is wanted, and prints warnings; shows no progress."""

    def __init__(self, manifest: str, stop: _Stop, record: RecordFile | None) -> None:
        self._stop, self._record = stop, record
        self.record = record
        self.wants_manifests = bool(manifest)
        # Now, so that a path that cannot be written fails before the transfer.
        self._manifest = _manifest_file(manifest) if manifest else None

    def checkpoint(self) -> None:
        """Stop the transfer if a signal requested that; write the record if that is due."""
        self._stop.check()
        if self._record:
            self._record.write_if_due()

    def parcel(self, parcel: ParcelReport) -> None:
        """Append a verified parcel's manifest to the file."""
        if self._manifest and parcel.manifest is not None and parcel.state is ParcelState.VERIFIED:
            import zlib

            self._manifest.write(zlib.decompress(parcel.manifest))
            self._manifest.flush()

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Print warnings and errors."""
        if level != "info":
            with OUTPUT_MAY_FAIL:
                print(f"{level}: {message} ({code})", file=sys.stderr)

    def end(self) -> None:
        """Do nothing: no progress was drawn."""


def _manifest_file(path: str) -> BinaryIO:
    from engine.named_files import create

    return create(path)


def _observer(chosen: argparse.Namespace, stop: _Stop, record: RecordFile | None) -> Any:
    plain = _PlainObserver(chosen.manifest, stop, record)
    observer: SilentObserver = plain
    if sys.stderr.isatty() and not chosen.json:
        from engine.cli.progress_bar import ProgressBar

        observer = ProgressBar(sys.stderr, plain)
    if record:
        record.on_event = observer.event
    return observer


class _Stop:
    """Ends the transfer at a signal.

    Python drops an exception that a handler raises while a destructor runs; then the next
    checkpoint raises it again. A further signal does not cut off the clean-up after the first
    one, which takes CLEANING_SECONDS at most.
    """

    def __init__(self, resume: bool) -> None:
        self._error = errors.Interrupted if resume else errors.Cancelled
        self._then = (
            "what had arrived stays; the same command goes on"
            if resume
            else "what had arrived is removed; with --resume it stays"
        )
        self._requested_at = 0.0
        self._is_over = False

    def on_signal(self, *_: Any) -> None:
        """Stop at once; a signal handler."""
        now = time.monotonic()
        if self._is_over:
            return
        if now - self._requested_at < CLEANING_SECONDS:
            with contextlib.suppress(OSError):  # Not `print`: it may be interrupted itself.
                os.write(2, b"stopping already: the target is being left in order\n")
            return
        self._requested_at = now
        self.check()

    def check(self) -> None:
        """Raise the error if a signal came."""
        if self._requested_at:
            raise self._error(f"stopped by a signal or by Ctrl-C; {self._then}")

    def disarm(self) -> None:
        """Ignore signals from now on: only the result is still to be shown."""
        self._is_over = True


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
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # Closed when this process began.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    try:
        status = main()
    except KeyboardInterrupt:  # `verify` changes nothing that would have to be put in order.
        return 130
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
