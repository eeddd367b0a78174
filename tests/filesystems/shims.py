"""`shim.c`, compiled once a run: what calls below one folder do where no real file system is had.

Words of a shim, each NAME or NAME=value; an errno is a number:

    NO_LOCKS=errno      flock fails             SILLY           an open file that is removed stays
    NO_TIMES=errno      utime fails                             under a name .nfs…
    IGNORE_TIMES        utime does nothing      ESTALE=file     one call fails so, once
    GRAIN=seconds       times are rounded       INODES          numbers change every 2 s
    MODE=octal          all have this mode      SQUASH=user     root acts as that user
    NO_LINKS=errno      no hard links           NAMES=errno:characters   names with these, or with
    NO_SYMLINKS=errno   no symlinks                             a dot or a blank at the end, fail
    NO_RENAME2          no rename with flags    FOLD            names are one whatever their case
    NO_SYNC=errno       fsync and syncfs fail   EXDEV=folder    nothing is renamed into it
    NO_HOLES            files hold no holes     NO_SPACE        statfs says 0 everywhere
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")


@cache
def library() -> Path:
    """The compiled shim, in a folder that goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="ketter-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "shim.so"
    line = ["cc", "-O1", "-shared", "-fPIC", "-o", made, _SOURCE, "-ldl"]
    subprocess.run(list(map(str, line)), check=True)
    folder.chmod(0o755)  # Another user's agents load it.
    return made


def environment(at: Path, words: str) -> dict[str, str]:
    """The environment of a process for which the folder behaves so; of this one without words."""
    if not words:
        return dict(os.environ)
    return {**os.environ, "LD_PRELOAD": str(library()), "FS_SHIM": f"AT={at};{words}"}
