"""The places that a command names: paths of this machine, and ssh:// addresses."""

from __future__ import annotations

import argparse
import os
import re
from _blake2 import blake2b

from engine import errors
from engine.agent.inodes import is_forgetful, type_of
from engine.types import Endpoint, SshAccess

#: Regular expressions; each is compiled only where it is used, since that takes a while.
_URL = r"ssh://(?:(?P<user>[^@/]+)@)?(?P<host>\[[^]]+\]|[^:/@]+)(?::(?P<port>\d+))?(?P<path>/.*)"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_PASSWORD_PART = r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^:/@]*):.*@"  # noqa: S105 - a pattern
_FORM = "write ssh://[user@]host[:port]/path"


def place(text: str, options: argparse.Namespace) -> Endpoint:
    """Return the endpoint of a path or an `ssh://[user@]host[:port]/path`.

    The path of a URL is taken as it is, without percent decoding. Raises BadRequest, which never
    shows a password.
    """
    if not text:
        # Not the current folder: a script's unset variable must not move that away.
        raise errors.BadRequest("a path is empty; it must name a folder or a file")
    return _far(text, options) if text.startswith("ssh://") else _here(text)


def _here(text: str) -> Endpoint:
    if re.match(_SCHEME, text):
        raise errors.BadRequest(f"{_shown(text)} is neither a path nor an ssh:// address")
    first = text.partition("/")[0]
    if ":" in first:
        raise errors.BadRequest(
            f"{_shown(text)} looks like a path on another host: {_FORM}, "
            "or ./… for a folder of that name on this machine"
        )
    if first == "~":
        raise errors.BadRequest(
            f"{text} begins with ~, which the shell did not replace: write the home folder's path, "
            "or ./~ for a folder of that name"
        )
    tail = "/" if text.endswith("/") else ""
    return Endpoint("/", os.path.abspath(_without_dots(text)).lstrip("/") + tail)


def _without_dots(text: str) -> str:
    """Return the path without `..`, as the kernel goes: from where a symlink leads to."""
    parts = text.split("/")
    if ".." not in parts:
        return text
    last = len(parts) - parts[::-1].index("..")
    above = "/".join(parts[:last])
    try:
        return "/".join([os.path.realpath(above, strict=True), *parts[last:]])
    except OSError as error:
        raise errors.BadRequest(f"{text} leads nowhere: {above}: {error.strerror}") from error


def _far(text: str, options: argparse.Namespace) -> Endpoint:
    match = re.fullmatch(_URL, text, re.DOTALL)
    if match is None or match["host"].startswith("-"):
        raise errors.BadRequest(f"{_shown(text)} is not of the form ssh://[user@]host[:port]/path")
    if ":" in (match["user"] or ""):
        raise errors.BadRequest(
            f"{_shown(text)} has a password, which other users of this machine can read: leave it "
            "out, and use a key"
        )
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise errors.BadRequest(f"{text} has the port {port}; a port is a number from 1 to 65535")
    path = match["path"]
    if path.startswith("/~"):
        raise errors.BadRequest(
            f"{text} names no home folder, but a folder {path.split('/')[1]} at the top of the "
            "host: write the path from / on, or /./~ for a folder of that name"
        )
    access = SshAccess(
        host=match["host"].strip("[]"),
        port=port,
        username=match["user"] or "",
        identity_file=options.identity,
        known_hosts_file=options.known_hosts,
        config_file=options.ssh_config,
        passes=None,
    )
    clean = "/".join(part for part in path.split("/") if part not in ("", "."))
    return Endpoint("/", clean + ("/" if path.endswith("/") else ""), access)


def _shown(text: str) -> str:
    """Return an address for an error, without what may be a password."""
    return re.sub(_PASSWORD_PART, r"\1:***@", text, flags=re.DOTALL)


def transfer_id(source: Endpoint, target: Endpoint) -> str:
    """Return an id that the same command has again, and no other: it names the staging folder.

    So a repeated command resumes from what a killed one left, or clears it away. Another folder
    under the same path (another disk, another machine) is another transfer.
    """
    ends = [[end.root, end.path, *_host(end)] for end in (source, target)]
    top = [] if source.ssh else _folder_id(f"{source.root}{source.path}")
    text = repr([ends, _machine(), top]).encode("utf-8", "surrogateescape")
    return f"cli-{blake2b(text, digest_size=8).hexdigest()}"


def _host(end: Endpoint) -> list[str]:
    return [end.ssh.username, end.ssh.host, str(end.ssh.port)] if end.ssh else []


def _machine() -> list[str]:
    """Name this machine, also after its next start: copies of a machine may have the same id."""
    name = [os.uname().nodename]
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as source:
            return [*name, source.read(64).strip()]
    except OSError:
        return name


def _folder_id(path: str) -> list[int]:
    """Identify a source's folder as far as its file system keeps that; not at all without one.

    Not by the device's number, which another order of plugging in changes.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path.rstrip("/"))
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if is_forgetful(type_of(fd, ".")):
            return []
        return [os.fstatvfs(fd).f_fsid, os.fstat(fd).st_ino]
    except OSError:
        return []
    finally:
        os.close(fd)
