"""The agent's source as one program, and the command that makes a Python run it.

The far side gets a command line with a key (the token) and reads the program
from stdin; it refuses to run anything whose keyed digest (BLAKE2b) is not the
one sent before it. Nothing is written there.

The program is a JSON line, {"magic": …, "modules": {name: [source, code]}} with
sizes in bytes, and then all sources and all codes in that order. `code` is what
Python has compiled a source to; a Python of the same kind (its magic number)
takes that, which is quicker by 30 ms, any other compiles the source.
"""

from __future__ import annotations

import json
import marshal
import os
import struct
import zlib
from _blake2 import blake2b  # Not hashlib, see `wire`.
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source

#: The agent's modules: those of both ends, and what only one of them needs.
_OF_BOTH = ("desk", "inlet", "look", "main", "stage", "tree", "wire", "xattrs", "zipstream")
_OF_SOURCE = ("filters", "outlet", "remove", "scan", "sender", "source")
_OF_TARGET = (
    "archive",
    "delivered",
    "finish",
    "incoming",
    "journal",
    "names",
    "publish",
    "receiver",
    "resume",
    "staging",
    "target",
)
MODULES = (*_OF_BOTH, *_OF_SOURCE, *_OF_TARGET)

#: What the far Python says when it is too old, before it exits.
TOO_OLD = "KETTER-PYTHON-TOO-OLD"
#: What it says when the program that came is not the one that was sent.
DAMAGED = "KETTER-PROGRAM-DAMAGED"

_FOLDER = os.path.join(os.path.dirname(__file__), "agent")
_PACKAGE = "engine.agent."

_BOOTSTRAP = """
import sys
if sys.version_info < (3, 8): sys.exit("%(too_old)s")
import hashlib, json, marshal, os, zlib
MAGIC_NUMBER = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
ModuleSpec = type(json.__spec__)
def read(left):
    data = b""
    while left:
        part = os.read(0, left)
        if not part: sys.exit(1)
        left -= len(part)
        data += part
    return data
digest, size = read(32), int.from_bytes(read(4), "big")
program = read(size)
if hashlib.blake2b(program, key=bytes.fromhex("%(token)s"), digest_size=32).digest() != digest:
    sys.exit("%(damaged)s")
head, _, data = zlib.decompress(program).partition(b"\\n")
head, at, sources, codes = json.loads(head), 0, {}, {}
same = head["magic"] == MAGIC_NUMBER.hex()
for name, sizes in head["modules"].items():
    sources[name], at = data[at:at + sizes[0]], at + sizes[0]
for name, sizes in head["modules"].items():
    if same and sizes[1]: codes[name] = data[at:at + sizes[1]]
    at += sizes[1]
class Modules:
    @staticmethod
    def find_spec(name, path, target=None):
        if not name.startswith("engine"): return None
        return ModuleSpec(name, Modules, is_package=name not in sources)
    @staticmethod
    def create_module(spec): return None
    @staticmethod
    def exec_module(module):
        name = module.__name__
        if name in codes: code = marshal.loads(codes[name])
        elif name in sources: code = compile(sources[name], "ketter/" + name, "exec")
        else: return
        exec(code, module.__dict__)
sys.meta_path.insert(0, Modules)
from engine.agent.main import main
main("%(token)s")
""".strip()


@cache
def program(here: bool, of_target: bool) -> bytes:
    """The program of one end's agent, made once per process; for one `here` without spare sources.

    A source's agent has no way to write, not even if it were told to.
    """
    names = (*_OF_BOTH, *(_OF_TARGET if of_target else _OF_SOURCE))
    sources = [source_of(name) for name in names]
    codes = [code_of(name, source) for name, source in zip(names, sources, strict=True)]
    if here:
        sources = [b"" if code else source for source, code in zip(sources, codes, strict=True)]
    modules = {
        _PACKAGE + name: [len(source), len(code)]
        for name, source, code in zip(names, sources, codes, strict=True)
    }
    head = json.dumps({"magic": MAGIC_NUMBER.hex(), "modules": modules}).encode("ascii")
    return zlib.compress(b"\n".join((head, b"".join(sources + codes))), 0 if here else 1)


def sealed(data: bytes, token: str) -> bytes:
    """A program as the bootstrap with that token believes it."""
    digest = blake2b(data, key=bytes.fromhex(token), digest_size=32).digest()
    return digest + len(data).to_bytes(4, "big") + data


def source_of(name: str) -> bytes:
    """A module's source."""
    with open(os.path.join(_FOLDER, f"{name}.py"), "rb") as file:
        return file.read()


def code_of(name: str, source: bytes) -> bytes:
    """What this Python has compiled the source to; nothing if another source is in its place.

    It is taken from the file where Python keeps it: 16 bytes of header, of which
    the last eight are the source's time and size (PEP 552), then the code.
    """
    path = os.path.join(_FOLDER, f"{name}.py")
    info = os.stat(path)
    loader = SourceFileLoader(_PACKAGE + name, path)
    if loader.get_data(path) != source:
        return b""
    try:
        with open(cache_from_source(path), "rb") as file:
            kept = file.read()
        expected = MAGIC_NUMBER + struct.pack("<III", 0, int(info.st_mtime), info.st_size)
        if kept[:16] == expected:
            return kept[16:]
    except OSError:
        pass  # It is made below, and kept if the folder may be written to.
    return marshal.dumps(loader.get_code(_PACKAGE + name))


def bootstrap(token: str) -> str:
    """The Python text that reads the program from stdin, checks it and runs it.

    `token` is the key of its digest, and what the agent waits for before it
    believes a command.
    """
    return _BOOTSTRAP % {"too_old": TOO_OLD, "damaged": DAMAGED, "token": token}


def remote_command(token: str) -> str:
    """The command line that starts the agent on a far host, the same in every shell.

    Hexadecimal, because csh and fish read quotes and newlines each in their own way.
    """
    text = bootstrap(token).encode("ascii").hex()
    return f"exec python3 -I -S -X utf8 -c 'exec(bytes.fromhex(\"{text}\"))'"


def new_token() -> str:
    """A token no greeting of a shell can hold by accident, and nobody can guess."""
    return os.urandom(16).hex()
