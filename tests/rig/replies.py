"""Good messages of an agent, and replies to each command: tests change what they have to."""

from __future__ import annotations

from typing import Any

from engine.agent.wire import Entry, message, pack_entries

PLACE = [[1, 2], [1, "a/b"]]
#: A good reply for each command that has fields: values, and the bytes behind them.
GOOD: dict[str, tuple[dict[str, Any], bytes]] = {
    "inspect": (
        {
            "kind": "folder",
            "real": "/r/a",
            "root": "/r",
            "has_root": True,
            "below_root": "a",
            "writable": True,
            "free": 1,
            "size": 2,
            "free_inodes": -1,
            "read_only": False,
            "unmounted": ["/mnt"],
            "name_max": 255,
            "case_folding": False,
            "left": False,
            "linked": False,
            "foreign": False,
            "cores": 2,
            "host": "lab",
            "machine": "id",
            "ancestor_ids": PLACE,
            "exposed": ["/r"],
        },
        b"",
    ),
    "hash": ({"ids": [[1, 2], []], "whole": "", "gone": [1]}, bytes(64)),
    "scan": ({"hard_links": 1, "links_skipped": 0, "links_unknown": 0, "holes": 4096}, b""),
    "send": (
        {"sent": 1, "errors": {"0": ["VANISHED", "x"]}, "torn": False, "archive": ""},
        bytes(32),
    ),
    "stat": ({"holes": 0}, b""),
    "remove": ({"removed": 1, "kept": [["a", "VANISHED", "x"]]}, b""),
    "remove_folders": ({"removed": 1, "full": 0, "problems": []}, b""),
    "compare": (
        {
            "states": "sx",
            "others": {"0": "b"},
            "errors": {"1": ["PERMISSION_DENIED", "x"]},
            "mounts": ["proj"],
            "room": 1,
        },
        b"",
    ),
    "stage": (
        {
            "fresh": True,
            "left": False,
            "transfer_id": "t",
            "keeps_owners": True,
            "notes": [["NO_LOCKS", "x"]],
            "made": ["/r/a"],
        },
        b"",
    ),
    "names": ({"rules": [255, False, False, True]}, b""),
    "receive": (
        {"got": 1, "list": "ab", "errors": {}, "refused": ["x"], "refusals": 1},
        bytes(32),
    ),
    "fence_out": ({"fence_out": "h1"}, b""),
    "complete": ({"whole": "a"}, bytes(32)),
    "close_archive": ({"archive": "0" * 64}, b""),
    "publish_archive": ({"there": "a.zip", "name": "a.zip", "size": 9}, b""),
    "publish": (
        {
            "problems": [["a", "IO_ERROR", "x"]],
            "problem_count": 1,
            "refused": True,
            "renamed": True,
        },
        b"",
    ),
    "adjust": ({"problems": [["a", "PERMISSION_DENIED", "x"]], "problem_count": 1}, b""),
    "unpublished": ({"kept": [["a", "PERMISSION_DENIED", "x"]], "names": [["b", "b (2)"]]}, b""),
}
ENTRIES = pack_entries([Entry("a/b", "f", 1, 2, 0o644, 3), Entry("l", "l", 1, 2, 0, 3, "a", b"m")])
#: A good message of each kind: values, and the bytes behind them.
MESSAGES: dict[str, tuple[dict[str, Any], bytes]] = {
    "done": ({"done": {"removed": 1, "kept": [["a", "VANISHED", "x"]]}, "op": "remove"}, b""),
    "progress": ({"progress": 5, "parcel": 1}, b""),
    "beat": ({"beat": True, "work": 5, "waits": False}, b""),
    "entries": ({"entries": 2}, ENTRIES),
    "failures": ({"failures": [["a", "VANISHED", "x"], ["b", "IO_ERROR", "y"]]}, b""),
    "error": ({"error": ["NO_SPACE", "the disk is full"]}, b""),
    "hello": ({"hello": 7, "python": "3.11.2", "system": "linux"}, b""),
    "delivered": ({"delivered": "a.zip"}, b""),
    "held": ({"held": 1, "list": len(ENTRIES)}, ENTRIES + bytes(64)),
    "parts": ({"parts": [{"file": ["a", 9, 5, 7], "upto": 0, "slices": [[0, 2], [5, 4]]}]}, b""),
}


def reply(op: str, values: Any, blob: bytes = b"") -> bytes:
    return message({"done": values, "op": op}, blob)
