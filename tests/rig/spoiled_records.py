"""A record of the command line that is damaged, or that others may have written."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from zlib import crc32

import pytest

from engine.cli import proof_record
from tests.rig.needs import needs_root

STRANGER = 64123


def truncated(record: Path) -> None:
    os.truncate(record, record.stat().st_size // 2)


def damaged(record: Path) -> None:
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 0xFF
    record.write_bytes(data)


def nonsense(record: Path) -> None:
    record.write_bytes(os.urandom(10_000))


def lists_of_nothing(record: Path) -> None:
    """A record whose checksum is right, and whose list is none."""
    body = b"no list of entries"
    record.write_bytes(proof_record._HEAD.pack(len(body), 0, crc32(body)) + body)


def a_link(record: Path) -> None:
    record.rename(record.with_name("elsewhere"))
    record.symlink_to("elsewhere")


def two_names(record: Path) -> None:
    os.link(record, record.with_name("elsewhere"))


def a_pipe(record: Path) -> None:
    record.unlink()
    os.mkfifo(record, 0o600)


def a_socket(record: Path) -> None:
    record.unlink()
    there = os.getcwd()
    os.chdir(record.parent)  # The path of a socket may have 107 bytes.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(record.name)
    os.chdir(there)


def a_folder(record: Path) -> None:
    record.unlink()
    record.mkdir()


def readable_by_others(record: Path) -> None:
    record.chmod(0o644)


def in_a_folder_of_others(record: Path) -> None:
    record.parent.chmod(0o770)


def in_a_linked_folder(record: Path) -> None:
    record.parent.rename(record.parent.with_name("elsewhere"))
    record.parent.symlink_to("elsewhere")


def another_users(record: Path) -> None:
    os.chown(record, STRANGER, STRANGER)


def in_another_users_folder(record: Path) -> None:
    os.chown(record.parent, STRANGER, STRANGER)


def in_another_users_home(record: Path) -> None:
    os.chown(record.parent.parent, STRANGER, STRANGER)


#: What is as good as no record.
SPOILED = (truncated, damaged, nonsense, lists_of_nothing, Path.unlink)
#: What is not used, and said to be not.
REFUSED = (
    a_link,
    two_names,
    a_pipe,
    a_socket,
    a_folder,
    readable_by_others,
    in_a_folder_of_others,
    in_a_linked_folder,
    *(
        pytest.param(spoil, marks=needs_root)
        for spoil in (another_users, in_another_users_folder, in_another_users_home)
    ),
)
