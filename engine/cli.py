"""The engine's own command line: `python -m engine.cli --from A --to B --mode copy`.

Exit status: 0 done, 1 failed, 2 wrong request, 3 partial, 4 verification
failed, 5 no connection (host, host key, credential, Python), 6 no space,
130 cancelled. With --json the result is one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from engine import errors, transfer
from engine.bar import Bar
from engine.types import (
    Endpoint,
    Mode,
    OnConflict,
    Report,
    Request,
    SshAccess,
    Strategy,
    Verify,
)

EXIT_PARTIAL = 3
_URL = re.compile(
    r"ssh://(?:(?P<user>[^@/]+)@)?(?P<host>\[[^]]+\]|[^:/@]+)(?::(?P<port>\d+))?(?P<path>/.*)",
    re.DOTALL,
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one transfer as the arguments say; return the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    bar = Bar(sys.stderr) if sys.stderr.isatty() and not options.json else None
    try:
        request = _request(options)
        if options.dry_run:
            _show({"status": "planned", "plan": transfer.dry_run(request, bar)}, options.json)
            return 0
        report = transfer.run(request, bar)
    except errors.EngineError as error:
        return _show_error(error, options.json)
    except KeyboardInterrupt:
        return _show_error(errors.Cancelled("stopped by the user"), options.json)
    finally:
        if bar:
            bar.end()
    _show(_report(report), options.json)
    return 0 if report.status == "done" else EXIT_PARTIAL


def place(text: str, options: argparse.Namespace) -> Endpoint:
    """The endpoint a path or an `ssh://[user@]host[:port]/path` stands for.

    The path of a URL is taken as it is, without percent decoding.
    """
    if not text:
        # Not "here": an unset variable of a script must not have its folder moved away.
        raise errors.BadRequest("an empty path names no place")
    if not text.startswith("ssh://"):
        if _SCHEME.match(text):
            raise errors.BadRequest(f"{text} is neither a path nor an ssh:// address")
        tail = "/" if text.endswith("/") else ""
        return Endpoint("/", os.path.abspath(text).lstrip("/") + tail)
    match = _URL.fullmatch(text)
    if match is None or match["host"].startswith("-"):
        raise errors.BadRequest(f"{text} is not of the form ssh://[user@]host[:port]/path")
    path = match["path"]
    tail = "/" if path.endswith("/") else ""
    access = SshAccess(
        host=match["host"].strip("[]"),
        port=int(match["port"]) if match["port"] else None,
        username=match["user"] or "",
        identity_file=options.identity,
        known_hosts_file=options.known_hosts,
        config_file=options.ssh_config,
    )
    clean = "/".join(part for part in path.split("/") if part)
    return Endpoint("/", clean + tail, access)


def _request(options: argparse.Namespace) -> Request:
    # The same two places give the same staging folder, so a repeated command
    # clears away what a killed one left.
    name = hashlib.sha256(os.fsencode(f"{options.source}\0{options.target}")).hexdigest()[:16]
    return Request(
        source=place(options.source, options),
        target=place(options.target, options),
        transfer_id=f"cli-{name}",
        mode=Mode(options.mode),
        strategy=Strategy(options.strategy),
        verify=Verify(options.verify) if options.verify else None,
        on_conflict=OnConflict(options.on_conflict),
        include=tuple(options.include),
        exclude=tuple(options.exclude),
        streams=options.streams,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.cli",
        description="Move a folder or a file to another place and prove that it arrived.",
        epilog=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    where = "a path, or ssh://[user@]host[:port]/path"
    add("--from", dest="source", required=True, metavar="A", help=where)
    add("--to", dest="target", required=True, metavar="B", help=f"{where}; A's contents land in it")
    add(
        "--mode",
        choices=[*map(str, Mode)],
        default="copy",
        help="what happens to A (default: copy)",
    )
    add("--strategy", choices=[*map(str, Strategy)], default="auto", help="how entries are packed")
    add("--verify", choices=[*map(str, Verify)], help="default: stream for copy, readback for move")
    add("--on-conflict", choices=[*map(str, OnConflict)], default="fail", help="default: fail")
    add("--include", action="append", default=[], metavar="GLOB", help="only these files")
    add("--exclude", action="append", default=[], metavar="GLOB", help="not these files or folders")
    add("--streams", type=_streams, default=1, metavar="N", help="lanes side by side, 1 to 32")
    add("--dry-run", action="store_true", help="print the plan and change nothing")
    add("--json", action="store_true", help="print the result as one JSON object")
    add("--ssh-config", type=_file, default="", metavar="FILE", help="for ssh -F")
    add("--identity", type=_file, default="", metavar="FILE", help="private key for ssh")
    add(
        "--known-hosts",
        type=_file,
        default="",
        metavar="FILE",
        help="host keys to trust, and no others",
    )
    return parser


def _streams(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 32:
        raise argparse.ArgumentTypeError("1 to 32")
    return number


def _file(text: str) -> str:
    # Asked here, since ssh tells a missing file as a refused login or a lost connection.
    if text and not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return text


def _terminated(*_: Any) -> NoReturn:
    raise errors.Cancelled("ended by a signal")


def _report(report: Report) -> dict[str, Any]:
    return {**dataclasses.asdict(report), "rate": report.rate}


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    if result["status"] == "planned":
        plan = result["plan"]
        parcels = ", ".join(f"{n} {kind}" for kind, n in plan["parcels"].items()) or "none"
        print(
            f"{plan['files']} files, {plan['folders']} folders, {plan['bytes']:,} bytes to send; "
            f"{plan['skipped']} there already; parcels: {parcels} ({plan['why']})"
        )
        return
    for failure in result["failures"]:
        print(f"failed: {failure['message']} ({failure['code']})")
    if result["failures_total"] > len(result["failures"]):
        print(f"and {result['failures_total'] - len(result['failures'])} more failed")
    print(
        f"{result['status'].upper()}: {result['files']} files, {result['bytes']:,} bytes in "
        f"{result['seconds']:.1f} s ({result['rate'] / 1e6:.1f} MB/s), "
        f"{result['files_skipped']} there already, "
        f"{result['files_removed']} removed at the source, verified: {result['verify']}"
    )


def _show_error(error: errors.EngineError, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"status": "failed", "code": error.code, "message": str(error)}))
    else:
        print(f"{error.code}: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
