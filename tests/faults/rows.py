"""The faults that Ketter must survive, and what holds through all of them.

Each has a test that bears its number and its sentence.
"""

from __future__ import annotations

ROWS: dict[int | str, str] = {
    1: "worker SIGKILL mid large file",
    2: "worker SIGKILL while packing or unpacking",
    3: "SIGKILL between rename and database commit",
    4: "SIGKILL between verify and source delete (move)",
    5: "SIGTERM, as in a deployment",
    6: "Redis restart or flush",
    7: "Postgres restart mid-job",
    8: "same job delivered twice by RQ",
    9: "zombie worker returns after takeover",
    10: "two jobs to the same or nested target",
    11: "job whose source is its target, or target inside source",
    12: "sshd killed",
    13: "network blackhole, no RST",
    14: "authentication failure, host key changed",
    15: "credential expires mid-job",
    16: "disk full at the destination, before",
    17: "disk full during",
    18: "scratch disk full on the packing side",
    19: "file grows or changes while read",
    20: "file vanishes between scan and read",
    21: "permission denied on one of many",
    22: "symlink in source pointing outside root, or a loop",
    23: "symlink planted in target",
    24: "zip-slip entry, absolute, dot-dot, duplicate entry, zip bomb",
    25: "newline, tab, invalid UTF-8, leading dash, quotes in names",
    26: "255-byte name, path over 4096",
    27: "case twins and NFC/NFD twins on a folding target",
    28: "bit flip in transit, in the destination, or unpacked wrong",
    29: "sparse, empty, over 4 GiB, over 65,535 files, empty folders, odd times",
    30: "clock skew or clock stepped backwards",
    "+": "cancel in each phase; version skew; portal edited or deleted while its job runs",
}

INVARIANTS: dict[int | str, str] = {
    1: (
        "No source entry is removed unless its copy was verified in this job"
        " and the source is unchanged since"
    ),
    2: "No final name ever shows partial or unverified content",
    3: (
        "After any kill at any point, re-running ends in the same tree as an undisturbed run,"
        " with no debris"
    ),
    4: "At most one attempt publishes",
    5: "A job ends in exactly one terminal state, with an event that says why",
    6: "Nothing outside the two roots is read or written",
    7: "No secret reaches a log, an event, Redis, an API answer or a process list",
    8: "Memory stays flat as the tree grows",
}
