"""Settings from the environment, checked where they are read.

The order is: the process environment, then `.env` in the project folder, then
`var/secrets.env`, which `manage.py up` makes at the first start. For every
variable X a file can be named in `X_FILE` instead, as container secrets are.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import socket
import stat
from hashlib import blake2b
from pathlib import Path

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
#: The names by which this machine alone reaches its web server.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: What says that there is no such file for this user.
_NO_FILE = (FileNotFoundError, NotADirectoryError, PermissionError)
#: Opens a file of the var folder to add to it, and makes it if need be.
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND

env = environ.FileAwareEnv()
environ.Env.read_env(BASE_DIR / ".env")

VAR_DIR = Path(env.str("KETTER_VAR_DIR", default="") or BASE_DIR / "var").absolute()
SECRETS_FILE = VAR_DIR / "secrets.env"
#: Holds the name under which `manage.py up` first ran here.
MACHINE_FILE = VAR_DIR / "machine"
#: Shows on which machine that file was written.
MARK_FILE = VAR_DIR / "machine.mark"
#: A number of this installation of the system, see machine-id(5).
MACHINE_ID = Path("/etc/machine-id")
#: A machine's name; it stands in the names of workers.
MACHINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def required(name: str, why: str) -> str:
    """The value of a variable. Raises ImproperlyConfigured if it is not set, or empty."""
    value: str = env.str(name, default="").strip()
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set ({why}). `python3 manage.py up` makes one in var/secrets.env; "
            "for other installations see deploy/env.example."
        )
    return value


def positive(name: str, *, default: int) -> int:
    """The number in a variable, or the default. Raises ImproperlyConfigured if it is below 1."""
    text: str = env.str(name, default=str(default)).strip()
    if not text.isdecimal() or not int(text):
        raise ImproperlyConfigured(f"{name} is {text!r}, which is not a whole number above 0.")
    return int(text)


def one_of(name: str, *words: str) -> str:
    """The word in a variable; the first of `words` is the default.

    Raises ImproperlyConfigured if the variable holds none of `words`.
    """
    word: str = env.str(name, default=words[0]).strip()
    if word not in words:
        raise ImproperlyConfigured(f"{name} is {word!r}; it can be {' or '.join(words)}.")
    return word


def make_var_dir(folder: Path = VAR_DIR) -> Path:
    """Make the folder of all that Ketter writes for itself, closed to other users.

    Started by root, Postgres runs as another user, who must be able to pass through it.
    Raises ImproperlyConfigured if this user cannot make the folder, or does not own it.
    """
    return private_folder(folder, 0o711 if os.geteuid() == 0 else 0o700)


def private_folder(folder: Path, mode: int = 0o700) -> Path:
    """Make a folder of this user with that mode.

    Raises ImproperlyConfigured if that cannot be done, or if another user owns the folder: that
    user could read and replace what lies in it.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        owner = _close_folder(folder, mode)
        if owner == os.geteuid():
            return folder
        reason = f"it belongs to {_user_name(owner)}, and this is {_user_name(os.geteuid())}"
    except OSError as error:
        reason = str(error.strerror)
    raise ImproperlyConfigured(
        f"Ketter cannot use {folder} for its own files ({reason}): make this user its "
        "owner, or name another folder in KETTER_VAR_DIR."
    )


def _close_folder(folder: Path, mode: int) -> int:
    """Give a folder that mode if this user owns it, and the symlink to it; return the owner."""
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode) and found.st_uid != os.geteuid():
        return found.st_uid
    follow = 0 if stat.S_ISLNK(found.st_mode) else os.O_NOFOLLOW
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
    try:
        owner = os.fstat(fd).st_uid
        if owner == os.geteuid():
            os.fchmod(fd, mode)
        return owner
    finally:
        os.close(fd)


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def make_secrets() -> None:
    """Make the keys that are not set yet, once, in a file that only its owner can read.

    Settings cannot load without them, so this runs before settings do.
    """
    makers = {
        "KETTER_SECRET_KEY": lambda: secrets.token_urlsafe(50),
        "KETTER_FIELD_KEYS": lambda: Fernet.generate_key().decode(),
    }
    missing = {name: make() for name, make in makers.items() if not env.str(name, default="")}
    if not missing:
        return
    make_var_dir()
    with open(_open_own(SECRETS_FILE, "its keys", _APPEND), "w", encoding="utf-8") as stream:
        stream.writelines(f"{name}={value}\n" for name, value in missing.items())
    _read_secrets()


def machine_name() -> str:
    """The name of this machine: the one that is set, else the kept one, else the host's name.

    Raises ImproperlyConfigured if the one that is set, or kept, is no machine's name, or if the
    kept one is another machine's.
    """
    name = env.str("KETTER_MACHINE", default="").strip()
    source = "KETTER_MACHINE"
    if not name:
        name, source = _kept_machine(), str(MACHINE_FILE)
    if not name:
        odd = re.compile(r"[^A-Za-z0-9_.-]")
        return odd.sub("-", socket.gethostname()).lstrip(".-")[:64] or "machine"
    if not MACHINE.fullmatch(name):
        raise ImproperlyConfigured(
            f"{source} is {name!r}, which is no machine's name: 1 to 64 letters, digits and _ . -, "
            "the first of them no dot and no dash."
        )
    return name


def keep_machine(name: str) -> None:
    """Write the machine's name to the var folder, unless one is there: a host can be renamed.

    Raises ImproperlyConfigured if the file there is not this user's own.
    """
    make_var_dir()
    with open(
        _open_own(MACHINE_FILE, "its machine's name", _APPEND), "r+", encoding="utf-8"
    ) as kept:
        is_new = not kept.read().strip()
        if is_new:
            kept.write(f"{name}\n")
    # An earlier version has kept the name alone.
    if is_new or not _kept(MARK_FILE):
        with open(
            _open_own(MARK_FILE, "its machine's mark", _APPEND), "r+", encoding="ascii"
        ) as mark:
            mark.truncate(0)
            mark.write(_machine_mark())


def _kept_machine() -> str:
    name = _kept(MACHINE_FILE)
    here = _machine_mark()
    if name and here and _kept(MARK_FILE) not in ("", here):
        raise ImproperlyConfigured(
            f"{MACHINE_FILE} has the name of the machine {name!r:.70}, and was written on another "
            "one than this: the folder was copied, or restored from a backup. Portals of the kind "
            "this machine would use the folders of this one. Remove that file, and start again; "
            "or, if this is that machine with a new system, set KETTER_MACHINE to its name."
        )
    return name


def _kept(path: Path) -> str:
    try:
        file = _open_own(path, "its machine's name", os.O_RDONLY)
    except _NO_FILE:
        return ""
    with os.fdopen(file, encoding="utf-8", errors="replace") as kept:
        return kept.read(1000).strip()


def _machine_mark() -> str:
    """What shows on which machine a file was written; empty if the system has no number.

    Not the number itself, as machine-id(5) asks.
    """
    try:
        number = MACHINE_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    if not re.fullmatch("[0-9a-f]{32}", number):
        return ""
    return blake2b(number.encode(), digest_size=16, person=b"ketter").hexdigest()


def _read_secrets() -> None:
    """Put the file of keys into the environment; raises ImproperlyConfigured as `_open_own`.

    Another user's file could name servers of that user.
    """
    try:
        file = _open_own(SECRETS_FILE, "its keys", os.O_RDONLY)
    except _NO_FILE:
        return  # None yet, or none for this user.
    environ.Env.read_env(os.fdopen(file, encoding="utf-8"))


def _open_own(path: Path, content: str, how: int) -> int:
    """Open a file of the var folder; raises ImproperlyConfigured unless it is this user's own.

    To read it also raises FileNotFoundError, NotADirectoryError and PermissionError.
    """
    how |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, how, 0o600)
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and (found.st_uid, found.st_nlink) == (os.geteuid(), 1):
            if how & os.O_CREAT:
                os.fchmod(file, 0o600)
            return file
        os.close(file)
        reason = "it is no plain file of this user, or has a second name"
    except OSError as error:
        if not how & os.O_CREAT and isinstance(error, _NO_FILE):
            raise
        reason = str(error.strerror)
    raise ImproperlyConfigured(
        f"Ketter cannot keep {content} in {path} ({reason}): find out who made that file, "
        "and remove it."
    )


_read_secrets()
