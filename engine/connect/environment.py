"""Lists the environment variables that the engine passes on to the programs it starts.

The worker's environment holds the installation's keys and the passwords of its database. ssh
passes its environment to programs that the user's configuration names (ProxyCommand, Match exec),
and to the far host if SendEnv says so; other processes of its user can read a local agent's
environment. So this is a list of the variables that may pass, not of those that may not; but a
person at the command line starts ssh with the environment that it has in that person's shell.
"""

from __future__ import annotations

import os

#: For any program: the places of programs, home folder and temporary files; the user; language
#: and time zone. All LC_… variables pass as well.
COMMON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LANGUAGE", "TZ")
#: A Python that was built elsewhere finds its libraries by these, and the system its locales.
LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "LOCPATH")
#: What ssh gets from a worker, and so the programs that the configuration names.
FOR_SSH = ("HOME", "LANG", "PATH")
#: What holds keys and passwords of the installation: never passed on.
_OURS, _OUR_PREFIX = ("DATABASE_URL", "REDIS_URL"), "KETTER_"


def of_agent() -> dict[str, str]:
    """Return the environment of an agent on this machine."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in (*COMMON, *LIBRARIES) or name.startswith("LC_")
    }


def of_ssh(passes: tuple[str, ...] | None = ()) -> dict[str, str]:
    """Return the environment of ssh, and so of the programs that its configuration starts.

    It has HOME, LANG, PATH and the variables that `passes` names; with None, for a person at the
    command line, all of this process but the installation's.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not _is_ours(name) and (passes is None or name in (*FOR_SSH, *passes))
    }


def _is_ours(name: str) -> bool:
    return name.startswith((_OUR_PREFIX, *_OURS))
