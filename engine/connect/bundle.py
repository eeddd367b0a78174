"""The agent's source as one program, and the command that makes a Python run it.

The far host gets a command line with the digest of a key, which every user of that
host may read; and, on stdin, the key itself and the program. The bootstrap drops all
bytes before the key. It refuses a program whose keyed digest (BLAKE2b) differs from the
one between key and program: only the process that made the key can make it run
anything. Nothing is written at the far host. See docs/decisions/0015.

The program is a JSON line, {"magic": …, "role": …, "modules": {name: [source, code]}}
with sizes in bytes, followed by all sources and all codes in that order. `code` is a
compiled source. A Python of the same kind (its magic number) runs the code, which saves
30 ms; any other compiles the source.
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

#: The far Python prints this if it is too old, before it exits.
TOO_OLD = "KETTER-PYTHON-TOO-OLD"
#: It prints this if the program that arrived is not the one that was sent.
DAMAGED = "KETTER-PROGRAM-DAMAGED"
#: A far shell that reads its commands from our stdin, in place of the one it was given, ends with
#: this status. The bootstrap drops the line.
SHELL_READS_INPUT = 86
FIRST_LINE = b"\nexit %d\n" % SHELL_READS_INPUT

#: The folder of the agent's modules: those of both roles, and a folder for each role's own.
_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "agent")
_PACKAGE = "engine.agent."

_BOOTSTRAP = """
import sys
if sys.version_info < (3, 8): sys.exit("%(too_old)s")
import json, marshal, os, zlib
try: from _blake2 import blake2b
except ImportError: from hashlib import blake2b
MAGIC_NUMBER = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
ModuleSpec = type(json.__spec__)
def read(left):
    data = b""
    while left:
        part = os.read(0, left)
        if not part: sys.exit("%(damaged)s")
        left -= len(part)
        data += part
    return data
key = b""
while blake2b(key, digest_size=32).hexdigest() != "%(known_by)s":
    key = (key + read(1))[-16:]
digest, size = read(32), int.from_bytes(read(4), "big")
program = read(size)
if blake2b(program, key=key, digest_size=32).digest() != digest: sys.exit("%(damaged)s")
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
main(key.hex(), head["role"])
""".strip()


@cache
def modules(role: str) -> tuple[str, ...]:
    """Return the names of an agent's modules below `engine.agent`, for a "source" or a "target".

    A role's own modules are in the folder of that name.
    """
    names = []
    for folder, folders, files in os.walk(_FOLDER):
        below = os.path.relpath(folder, _FOLDER)
        if below == ".":
            folders[:] = [name for name in folders if name == role]
        parts = [] if below == "." else below.split(os.sep)
        names += [
            ".".join([*parts, file[: -len(".py")]])
            for file in files
            if file.endswith(".py") and file != "__init__.py"
        ]
    return tuple(sorted(names))


@cache
def program(here: bool, of_target: bool) -> bytes:
    """Return the program of one end's agent, made once per process.

    For an agent `here`, on this machine, it has no sources of modules that are compiled. A
    source's program contains no code that writes files, so no command can make it write.
    """
    role = "target" if of_target else "source"
    names = modules(role)
    sources = [source_of(name) for name in names]
    codes = [code_of(name, source) for name, source in zip(names, sources, strict=True)]
    if here:
        sources = [b"" if code else source for source, code in zip(sources, codes, strict=True)]
    sizes = {
        _PACKAGE + name: [len(source), len(code)]
        for name, source, code in zip(names, sources, codes, strict=True)
    }
    head = json.dumps({"magic": MAGIC_NUMBER.hex(), "role": role, "modules": sizes})
    return zlib.compress(
        b"\n".join((head.encode("ascii"), b"".join(sources + codes))), 0 if here else 1
    )


def sealed(data: bytes, token: str) -> bytes:
    """Return a program as that token's bootstrap accepts it: key, keyed digest, size, program."""
    key = bytes.fromhex(token)
    digest = blake2b(data, key=key, digest_size=32).digest()
    return b"".join((key, digest, len(data).to_bytes(4, "big"), data))


def source_of(name: str) -> bytes:
    """Return a module's source."""
    with open(_path_of(name), "rb") as file:
        return file.read()


def code_of(name: str, source: bytes) -> bytes:
    """Return a module's compiled code; empty if its file no longer holds that source.

    The code comes from Python's cache file: 16 bytes of header, of which the last eight
    are the source's time and size (PEP 552), then the code.
    """
    path = _path_of(name)
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
        pass  # The code is compiled below, and cached if the folder is writable.
    return marshal.dumps(loader.get_code(_PACKAGE + name))


def _path_of(name: str) -> str:
    return os.path.join(_FOLDER, *name.split(".")) + ".py"


def bootstrap(token: str) -> str:
    """Return the Python text that reads key and program from stdin, checks both, and runs it.

    The text is part of a command line, so it has only the digest of the token (the key).
    """
    known_by = blake2b(bytes.fromhex(token), digest_size=32).hexdigest()
    return _BOOTSTRAP % {"too_old": TOO_OLD, "damaged": DAMAGED, "known_by": known_by}


def remote_command(token: str) -> str:
    """Return the command line that starts the agent on a far host, the same for every shell.

    The text is hexadecimal, since csh and fish read quotes and newlines differently.
    """
    text = bootstrap(token).encode("ascii").hex()
    return f"exec python3 -I -S -X utf8 -c 'exec(bytes.fromhex(\"{text}\"))'"


def new_token() -> str:
    """Return a new key in hexadecimal digits, for an agent's program and its commands.

    Only the worker and that agent may know it; it travels over the agent's stdin alone.
    """
    return os.urandom(16).hex()
