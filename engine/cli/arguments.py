"""The command line's arguments, and the request that they make."""

from __future__ import annotations

import argparse
import os
import re
from _blake2 import blake2b
from typing import Any

from engine import errors
from engine.types import (
    Endpoint,
    HardLinks,
    Mode,
    OnConflict,
    Request,
    SshAccess,
    Strategy,
    Symlinks,
    Verify,
)

_URL = re.compile(
    r"ssh://(?:(?P<user>[^@/]+)@)?(?P<host>\[[^]]+\]|[^:/@]+)(?::(?P<port>\d+))?(?P<path>/.*)",
    re.DOTALL,
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKmMgG]?)(?:i?[bB])?(?:/s)?")
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}
_WHERE = "a path, or ssh://[user@]host[:port]/path"


class _Rule(argparse.Action):
    """Collects --include and --exclude in one list, in the order in which they stand."""

    def __call__(self, _: Any, options: Any, value: Any, name: str | None = None) -> None:
        options.filters = [*options.filters, ((name or "").strip("-"), value)]


def transfer_parser(description: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a transfer's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.cli",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--from", dest="source", required=True, metavar="A", help=_WHERE)
    add("--to", dest="target", required=True, metavar="B", help=f"{_WHERE}; for A's contents")
    add("--mode", choices=[*map(str, Mode)], default="copy", help="what happens to A")
    add("--strategy", choices=[*map(str, Strategy)], default="auto", help="how entries are packed")
    add("--verify", choices=[*map(str, Verify)], help="default: stream for copy, readback for move")
    add("--on-conflict", choices=[*map(str, OnConflict)], default="fail", help="default: fail")
    add("--checksum", action="store_true", help="compare content where sizes are equal, not times")
    parser.set_defaults(filters=[])
    for verb, what in (("include", "take"), ("exclude", "leave out")):
        add(f"--{verb}", action=_Rule, metavar="PATTERN", help=f"{what} what matches, like gitignore; the last rule that matches decides")  # noqa: E501  # fmt: skip
    add("--symlinks", choices=[*map(str, Symlinks)], default="keep", help="default: keep")
    add("--hard-links", choices=[*map(str, HardLinks)], default="copy", help="default: copy")
    add("--xattrs", action="store_true", help="extended attributes and ACLs, too")
    add("--special-bits", action="store_true", help="setuid, setgid and sticky bits, too")
    add("--streams", type=_streams, default=0, metavar="N", help="1 to 32; default: as measured")
    add("--bwlimit", type=rate, default=0, metavar="RATE", help="bytes per second: 500k, 20M, 1G")
    add("--resume", action="store_true", help="go on from what an interrupted run has left")
    add("--manifest", default="", metavar="FILE", help="write what was proven, a JSON line each")
    add("--dry-run", action="store_true", help="print the plan and change nothing")
    add_access(parser)
    return parser


def add_access(parser: argparse.ArgumentParser) -> None:
    """The arguments about ssh, and how the result is shown."""
    add = parser.add_argument
    add("--json", action="store_true", help="print the result as one JSON object")
    add("--ssh-config", type=_file, default="", metavar="FILE", help="for ssh -F")
    add("--identity", type=_file, default="", metavar="FILE", help="private key for ssh")
    known = "host keys to trust, and no others"
    add("--known-hosts", type=_file, default="", metavar="FILE", help=known)


def verify_parser() -> argparse.ArgumentParser:
    """The parser of `verify`."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.cli verify",
        description="Read a place again and compare it with a manifest.",
        allow_abbrev=False,
    )
    parser.add_argument("--manifest", required=True, type=_file, metavar="M")
    parser.add_argument("--at", required=True, metavar="B", help=_WHERE)
    add_access(parser)
    return parser


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
        if ":" in text.partition("/")[0]:
            raise errors.BadRequest(
                f"{text} looks like another host's: write ssh://[user@]host/path, "
                "or ./… for a folder of that name here"
            )
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


def request(options: argparse.Namespace) -> Request:
    """The transfer the arguments ask for."""
    if options.filters:
        from engine.rules import check_filters  # Only where there are any: it takes its time.

        check_filters(options.filters)
    # The same two places give the same staging folder, so a repeated command
    # goes on from what a killed one left, or clears it away.
    places = os.fsencode(f"{options.source}\0{options.target}")
    name = blake2b(places, digest_size=8).hexdigest()
    return Request(
        source=place(options.source, options),
        target=place(options.target, options),
        transfer_id=f"cli-{name}",
        resume=options.resume,
        mode=Mode(options.mode),
        strategy=Strategy(options.strategy),
        verify=Verify(options.verify) if options.verify else None,
        on_conflict=OnConflict(options.on_conflict),
        checksum=options.checksum,
        filters=tuple(options.filters),
        symlinks=Symlinks(options.symlinks),
        hard_links=HardLinks(options.hard_links),
        xattrs=options.xattrs,
        special_bits=options.special_bits,
        streams=options.streams,
        bwlimit=options.bwlimit,
    )


def rate(text: str) -> int:
    """Bytes per second from a text such as `500k`, `20M` or `1.5G` (thousands, not 1024s)."""
    match = _RATE.fullmatch(text)
    number = int(float(match["number"]) * _UNITS[match["unit"].lower()]) if match else 0
    if number < 1:
        raise argparse.ArgumentTypeError("a rate such as 500k, 20M or 1G (bytes per second)")
    return number


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
