"""A far account's `python3` that lies: it runs the agent that came over ssh, with changes.

The account has `python3` from here first in its PATH. It takes the command line that a worker
sends, and puts a program of the test's before the agent's start: `ROLE` is the agent's role, and
the modules of `engine.agent` can be imported and changed.
"""

from __future__ import annotations

from pathlib import Path

#: The account's `python3`. Without a file of lies it is an honest one.
_WRAPPER = """#!/bin/sh
exec REAL -IS -c '
import os, sys
real, lies = sys.argv[1:3]
words = ["python3"] + sys.argv[3:]
start = "from engine.agent.main import main\\n"
if os.path.exists(lies) and words[-1].startswith("exec(bytes.fromhex("):
    program = bytes.fromhex(words[-1].split(chr(34))[1]).decode()
    assert start in program
    with open(lies) as file:
        text = file.read()
    if text.startswith("# instead"):
        program = text
    else:
        lie = "ROLE = head[%r]\\nexec(compile(%r, %r, %r))\\n" % ("role", text, lies, "exec")
        program = program.replace(start, lie + start)
    words[-1] = program
os.execv(real, words)
' REAL LIES "$@"
"""


def make_python(folder: Path, real: str, lies: str) -> None:
    """Put such a `python3` into a folder; `lies` is the account's path of the program of lies."""
    wrapper = folder / "python3"
    wrapper.write_text(_WRAPPER.replace("REAL", real).replace("LIES", lies))
    wrapper.chmod(0o755)


#: What a program of lies begins with: `_say` is the honest way to speak, and `witness` says that
#: the lie was told.
PRELUDE = """
import json, os, signal, struct, sys, time
from engine.agent import wire
from engine.agent.context import Context
_say = Context.send
def witness():
    os.close(os.open(WITNESS, os.O_CREAT | os.O_WRONLY, 0o644))
"""


def prelude(witness: str) -> str:
    """PRELUDE with the path of the file that says that the lie was told."""
    return PRELUDE.replace("WITNESS", repr(witness))


#: Does LIE in place of the reply to the command OP; the name `more` is the reply's own values.
_IN_PLACE = """
def _lying(self, body, blob=b""):
    if body.get("op") == OP and "done" in body:
        done = body["done"]
        witness()
        LIE
    else:
        _say(self, body, blob)
Context.send = _lying
"""


def in_place_of(op: str, lie: str) -> str:
    """Have the account's agents do something else than reply to a command."""
    indented = "\n        ".join(lie.strip().splitlines())
    return _IN_PLACE.replace("OP", repr(op)).replace("LIE", indented)
