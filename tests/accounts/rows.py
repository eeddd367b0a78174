"""The far accounts that are tried, and what becomes of a transfer with each."""

from __future__ import annotations

import shutil
from typing import NamedTuple

from tests.accounts.far_host import Account
from tests.accounts.outcomes import WORKS, Outcome


class Row(NamedTuple):
    """An account, what it is called in the table, and its outcome; `nightly` leaves it to then."""

    title: str
    account: Account
    outcome: Outcome = WORKS
    nightly: bool = False


def _bash(lines: str, **more: str) -> Account:
    """An account with this profile: bash reads it although nobody types."""
    return Account(home={".bashrc": lines + "\n"}, **more)


def _program(name: str) -> str:
    return shutil.which(name) or f"/bin/{name}"


_GREETING = "yes 'Welcome to this machine, friend.' | head -c 3000000"
_NOISE = "while :; do echo 'noise of a job'; echo 'noise of a job' >&2; sleep 0.02; done"
_FLOOD = "(for n in 1 2 3 4 5 6; do yes 'noise of a job' | head -c 2000000; sleep 0.1; done)"

_NO_SHELL = "Give the account a login shell that runs programs"
_PROFILE = "Let the profile start another shell, and read input, only where a person types"
_PYTHON = "Install Python 3.8 or newer, first in the account's PATH"

_SHIM = "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n"

ROWS = {
    "bash": Row("bash as login shell", Account()),
    "dash": Row("dash", Account(shell=_program("dash"))),
    "ash": Row("busybox ash", Account(shell="~/ash", prepare='ln -s "$(command -v busybox)" ash')),
    "fish": Row("fish", Account(shell=_program("fish"))),
    "tcsh": Row("tcsh", Account(shell=_program("tcsh"))),
    "zsh": Row("zsh", Account(shell=_program("zsh"))),
    "greeting": Row(
        "a greeting of 3 MB on stdout and on stderr", _bash(f"{_GREETING}; {_GREETING} >&2")
    ),
    "held": Row("a job of the profile holds stdout and stderr", _bash("sleep 60 &")),
    "held-apart": Row(
        "a job in a session of its own holds both", _bash("setsid sleep 60 <&- &"), nightly=True
    ),
    "noise": Row("a job of the profile writes to stdout and stderr", _bash(f"({_NOISE}) &")),
    "noise-out": Row("… to stdout, much", _bash(f"{_FLOOD} 2>/dev/null &")),
    "noise-err": Row("… to stderr, much", _bash(f"{_FLOOD} >&2 2>&1 &"), nightly=True),
    "noise-late": Row(
        "… once, when the transfer is under way", _bash("(sleep 0.5; echo x; echo x >&2) &")
    ),
    "reads-a-line": Row("the profile reads a line of input", _bash("read -r line")),
    "no-home": Row("HOME is not set", _bash("unset HOME")),
    "home-gone": Row("the home folder does not exist", Account(prepare='rmdir "$PWD"')),
    "home-read-only": Row(
        "the home folder is read-only", Account(prepare="chown 0:0 .; chmod 555 .")
    ),
    "umask": Row("umask 077", _bash("umask 077")),
    "lang": Row("LANG=C", _bash("export LANG=C LC_ALL=C")),
    "few-files": Row("20 open files at most (`ulimit -n 20`)", _bash("ulimit -n 20")),
    "sftp-only": Row(
        "SFTP only (`ForceCommand internal-sftp`)",
        Account(server=("ForceCommand internal-sftp",)),
        Outcome("SHELL_FAILED", "SFTP only", "Let the account run programs"),
    ),
    "nologin": Row(
        "`nologin` as login shell",
        Account(shell="/usr/sbin/nologin"),
        Outcome("SHELL_FAILED", "login shell runs no command.*not available", _NO_SHELL),
    ),
    "false": Row(
        "`false` as login shell, where an SFTP server answers",
        Account(shell="/bin/false"),
        Outcome("SHELL_FAILED", "login shell.* only an SFTP server answers", _NO_SHELL),
        nightly=True,
    ),
    "expired": Row(
        "the password has expired",
        Account(password="a word", server=("PasswordAuthentication yes",)),
        Outcome("SHELL_FAILED", "expired", "Log in by hand and change the password"),
    ),
    "rbash": Row(
        "a restricted shell (rbash)",
        Account(shell="/bin/rbash"),
        Outcome("SHELL_FAILED", "restricted shell", _NO_SHELL),
    ),
    "exec-fish": Row(
        "the profile starts another shell: fish",
        _bash("exec fish"),
        Outcome("SHELL_FAILED", "login shell did not start our program", _PROFILE),
    ),
    "exec-dash": Row(
        "… dash, bash, zsh, tcsh, which read commands",
        _bash("exec dash"),
        Outcome("SHELL_FAILED", "starts another shell", _PROFILE),
    ),
    "eats-input": Row(
        "the profile reads all input",
        _bash("cat >/dev/null"),
        Outcome("SHELL_FAILED", "login shell did not start our program", _PROFILE),
        nightly=True,
    ),
    "no-python": Row(
        "no Python",
        _bash("PATH=$HOME/none"),
        Outcome("NO_PYTHON", "no python3", _PYTHON),
    ),
    "no-python-tcsh": Row(
        "no Python, and tcsh as login shell",
        Account(shell=_program("tcsh"), home={".tcshrc": "setenv PATH /none\n"}),
        Outcome("NO_PYTHON", "no python3", _PYTHON),
        nightly=True,
    ),
    "no-python-held": Row(
        "no Python, and a job of the profile holds the streams",
        _bash("sleep 60 & PATH=$HOME/none"),
        Outcome("NO_PYTHON", "no python3", _PYTHON),
        nightly=True,
    ),
    "stub": Row(
        "`python3` is a stub that starts none",
        Account(
            home={
                ".bashrc": "PATH=$HOME/bin:$PATH\n",
                "bin/python3": "#!/bin/sh\necho 'no tools, requesting install' >&2; exit 1\n",
            }
        ),
        Outcome("NO_PYTHON", "python3 that does not run our program.*no tools", _PYTHON),
    ),
    "pyenv": Row(
        "`python3` is pyenv's shim, and no version is chosen",
        Account(
            home={
                ".bashrc": "PATH=$HOME/bin:$PATH\n",
                "bin/python3": _SHIM,
            }
        ),
        Outcome("NO_PYTHON", "python3.*pyenv", _PYTHON),
    ),
    "few-processes": Row(
        "2 processes at most (`ulimit -u 2`)",
        _bash("ulimit -u 2"),
        Outcome("HOST_TROUBLE", "process", "If it comes again, allow the account more processes"),
    ),
    "no-processes": Row(
        "1 process at most, and a profile that starts some",
        _bash("ulimit -u 1; ls | cat"),
        Outcome("HOST_TROUBLE", "process", "If it comes again, allow the account more processes"),
        nightly=True,
    ),
    "little-memory": Row(
        "30 MB of memory (`ulimit -v 30000`)",
        _bash("ulimit -v 30000"),
        Outcome("HOST_TROUBLE", "memory|process", "If it comes again, allow it more memory"),
    ),
    "no-memory": Row(
        "12 MB of memory: Python does not start",
        _bash("ulimit -v 12000"),
        Outcome("HOST_TROUBLE", "memory", "If it comes again, allow it more memory"),
    ),
}
