"""Parses the command line's arguments, and makes the transfer's request from them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

from engine.cli.places import place, transfer_id
from engine.types import OPTIONS, Mode, Option, Request

#: A regular expression, compiled only where it is used, since that takes a while.
_RATE = r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKmMgG]?)(?:i?[bB])?(?:/s)?"
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}
_WHERE = "a path, or ssh://[user@]host[:port]/path"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Formats the help as wide as the terminal is.

    argparse makes a formatter for each argument that is added. It would find out the width with
    `shutil`, which takes 4 ms to import.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _Rule(argparse.Action):
    """Collects --include and --exclude in one list, in the order of the command line."""

    def __call__(self, _: Any, options: Any, value: Any, name: str | None = None) -> None:
        options.filters = [*options.filters, ((name or "").strip("-"), value)]


def transfer_parser(description: str, epilog: str) -> argparse.ArgumentParser:
    """Return the parser of a transfer's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.cli",
        description=description,
        epilog=epilog,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--from", dest="source", required=True, metavar="A", help=_WHERE)
    add("--to", dest="target", required=True, metavar="B", help=f"{_WHERE}; gets A's contents")
    add("--mode", choices=[*map(str, Mode)], default="copy", help="copy A, or move it")
    for option in OPTIONS:
        _add_option(parser, option)
    parser.set_defaults(filters=[])
    for verb, what in (("include", "take"), ("exclude", "leave out")):
        add(f"--{verb}", action=_Rule, metavar="PATTERN", help=f"{what} entries that match, with the patterns of gitignore; the last rule that matches decides")  # noqa: E501  # fmt: skip
    add("--bwlimit", type=rate, default=0, metavar="RATE", help="bytes per second: 500k, 20M, 1G")
    add(
        "--resume",
        action="store_true",
        help="go on with what an interrupted run left; at a signal, leave what has arrived",
    )
    add("--manifest", default="", metavar="FILE", help="write a JSON line for each proven entry")
    add(
        "--no-mkpath",
        action="store_false",
        dest="make_parents",
        help="fail if the folder in which B lies does not exist",
    )
    add("--dry-run", action="store_true", help="print the plan and change nothing")
    add_access(parser)
    return parser


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    """Add an argument for one option, named as the option, with dashes."""
    flag = "--" + option.name.replace("_", "-")
    if issubclass(option.kind, bool):
        parser.add_argument(flag, action="store_true", help=option.help)
    elif issubclass(option.kind, int):
        number = _number_up_to(option.most)
        parser.add_argument(flag, type=number, default=0, metavar="N", help=option.help)
    else:
        parser.add_argument(
            flag, choices=[*map(str, option.kind)], default=option.default, help=option.help
        )


def add_access(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for ssh, and for how the result is printed."""
    add = parser.add_argument
    add("--json", action="store_true", help="print the result as one JSON object")
    add("--ssh-config", type=_file, default="", metavar="FILE", help="configuration for ssh (-F)")
    add("--identity", type=_file, default="", metavar="FILE", help="private key for ssh")
    known = "the only host keys to trust"
    add("--known-hosts", type=_file, default="", metavar="FILE", help=known)


def verify_parser() -> argparse.ArgumentParser:
    """Return the parser of the command `verify`."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.cli verify",
        description="Read a place again, and compare it with a manifest.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--manifest", required=True, type=_file, metavar="M")
    parser.add_argument("--at", required=True, metavar="B", help=_WHERE)
    add_access(parser)
    return parser


def request(options: argparse.Namespace) -> Request:
    """Return the request for the transfer that the arguments describe."""
    if options.filters:
        from engine.plan.filters import (
            check_filters,  # Imported only if there are any: that takes time.
        )

        check_filters(options.filters)
    source, target = place(options.source, options), place(options.target, options)
    return Request(
        source=source,
        target=target,
        transfer_id=transfer_id(source, target),
        resume=options.resume,
        mode=Mode(options.mode),
        filters=tuple(options.filters),
        bwlimit=options.bwlimit,
        make_parents=options.make_parents,
        **{option.name: option.value_of(getattr(options, option.name)) for option in OPTIONS},
    )


def rate(text: str) -> int:
    """Return bytes per second from a text such as `500k`, `20M` or `1.5G` (1000s, not 1024s)."""
    match = re.fullmatch(_RATE, text)
    number = int(float(match["number"]) * _UNITS[match["unit"].lower()]) if match else 0
    if number < 1:
        raise argparse.ArgumentTypeError("expected bytes per second such as 500k, 20M or 1G")
    return number


def _columns() -> int:
    """Return the terminal's width in characters, as `COLUMNS` or the system has it; else 80."""
    given = os.environ.get("COLUMNS", "")
    try:
        return int(given) if given.isdecimal() and int(given) else os.get_terminal_size().columns
    except (OSError, ValueError):  # No terminal, or stdout is closed.
        return 80


def _number_up_to(most: int) -> Callable[[str], int]:
    """Return a function that reads a number from 1 to `most`."""

    def read(text: str) -> int:
        number = int(text) if text.isdecimal() else 0
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"expected a number from 1 to {most}")
        return number

    return read


def _file(text: str) -> str:
    # Checked here: ssh reports a missing file as a refused login or a lost connection, and waits
    # for a program that writes to a pipe.
    if text and not os.path.isfile(text):
        from engine.named_files import why_not_plain  # Imported only here: that takes time.

        raise argparse.ArgumentTypeError(why_not_plain(text))
    return text
