"""The agent's source as one text, and the command that makes a Python run it.

The far side gets a command line that holds the source's SHA-256 and reads the
source from stdin; it refuses to run anything else. Nothing is written there.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

#: The agent's modules, each after those it imports.
MODULES = ("wire", "tree", "scan", "zipstream", "sender", "receiver", "staging", "publish", "main")

#: What the far Python says when it is too old, before it exits.
TOO_OLD = "KETTER-PYTHON-TOO-OLD"

_BOOTSTRAP = """
import sys
if sys.version_info < (3, 8): sys.exit("%(too_old)s")
import hashlib, json, os, types, zlib
left, source = %(size)d, b""
while left:
    part = os.read(0, left)
    if not part: sys.exit(1)
    left -= len(part)
    source += part
if hashlib.sha256(source).hexdigest() != "%(digest)s": sys.exit("KETTER-PROGRAM-DAMAGED")
for name in ("engine", "engine.agent"): sys.modules[name] = types.ModuleType(name)
for name, text in json.loads(zlib.decompress(source)).items():
    module = sys.modules["engine.agent." + name] = types.ModuleType("engine.agent." + name)
    setattr(sys.modules["engine.agent"], name, module)
    exec(compile(text, "ketter-agent/" + name, "exec"), module.__dict__)
module.main("%(token)s")
""".strip()


class Program(NamedTuple):
    """The agent ready to travel: compressed source, and the SHA-256 that names it."""

    source: bytes
    digest: str


@cache
def program() -> Program:
    """The agent's source, made once per process."""
    folder = Path(__file__).parent / "agent"
    modules = {name: (folder / f"{name}.py").read_text("utf-8") for name in MODULES}
    source = zlib.compress(json.dumps(modules).encode("ascii"), 6)
    return Program(source, hashlib.sha256(source).hexdigest())


def bootstrap(token: str) -> str:
    """The Python text that reads the program from stdin, checks it and runs it.

    `token` is what the agent waits for before it believes a command.
    """
    source, digest = program()
    fields = {"too_old": TOO_OLD, "size": len(source), "digest": digest, "token": token}
    return _BOOTSTRAP % fields


def remote_command(token: str) -> str:
    """The command line that starts the agent on a far host, the same in every shell.

    Hexadecimal, because csh and fish read quotes and newlines each in their own way.
    """
    text = bootstrap(token).encode("ascii").hex()
    return f"exec python3 -I -S -X utf8 -c 'exec(bytes.fromhex(\"{text}\"))'"


def new_token() -> str:
    """A token no greeting of a shell can hold by accident."""
    return secrets.token_hex(16)
