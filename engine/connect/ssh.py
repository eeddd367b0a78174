"""The OpenSSH client: its command line, its private files, and what its complaints mean."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess

from engine import errors
from engine.bundle import TOO_OLD
from engine.types import HostKey, SshAccess

#: Seconds for the TCP connection and the server's greeting.
CONNECT_SECONDS = 15
_ASKPASS = os.path.join(os.path.dirname(__file__), "askpass.sh")
_ALIAS = "ketter-pinned"
_PREFIX = "ketter-ssh-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_OPTIONS = {
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "CheckHostIP": "no",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    # In hardware on both ends nearly everywhere, and then twice as fast as the default.
    "Ciphers": "^aes128-gcm@openssh.com",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "PermitLocalCommand": "no",
}
#: A socket's path may have 104 bytes (macOS) or more; ssh first adds 17 to the name.
_MUX_BYTES = 80

#: What ssh says -> what it means; the first that matches decides.
_MEANINGS: tuple[tuple[str, type[errors.EngineError], str], ...] = (
    (
        "HOST IDENTIFICATION HAS CHANGED",
        errors.HostKeyChanged,
        "shows another host key than the known one; make sure that it was replaced on purpose",
    ),
    (
        "Host key verification failed|host key is known for",
        errors.HostKeyUnknown,
        "shows a host key that is not known here; compare its fingerprint and pin it",
    ),
    (
        "Permission denied|Too many authentication failures|No more authentication methods",
        errors.AuthFailed,
        "refused the user name or the credential",
    ),
    ("Connection refused", errors.ConnectionRefused, "has no SSH server at that port"),
    (
        "Could not resolve hostname|No route to host|unreachable|timed out",
        errors.HostUnreachable,
        "cannot be reached",
    ),
    (
        "Connection closed|Connection reset|Broken pipe|not responding|Disconnected",
        errors.ConnectionLost,
        "closed the connection",
    ),
)


class SshFiles:
    """The files one ssh process needs, in a private folder that lives as long as needed.

    With `beside`, those of another process that is connected to the same host,
    its connection is shared: so a further stream is there in three round trips,
    without another key exchange.
    """

    def __init__(self, access: SshAccess, beside: SshFiles | None = None) -> None:
        self.access = access
        self._beside = beside
        #: Whether the connection is another one's.
        self.is_shared = False
        # What others left must not stop us; a worker's own look says what cannot be removed.
        with contextlib.suppress(OSError):
            sweep()
        self.folder, self._fd = _own_folder()
        self.log = os.path.join(self.folder, "log")
        self.socket = os.path.join(self.folder, "mux")

    def remove(self) -> None:
        """Remove the folder with all secrets in it."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):  # An ssh that is ending may write there: a sweep comes.
            _remove_folder(self._fd, self.folder)
        os.close(self._fd)
        self._fd = -1

    def remove_secrets(self) -> None:
        """Remove the secrets, once the connection stands; the log stays."""
        for name in ("key", "password"):
            path = os.path.join(self.folder, name)
            if os.path.exists(path):
                os.unlink(path)

    def command(self, remote: str) -> list[str]:
        """The command line that runs `remote` at the host."""
        access = self.access
        options = dict(_OPTIONS, BatchMode="no" if access.password else "yes")
        line = ["ssh", "-T", "-E", self.log]
        if access.config_file:
            line += ["-F", access.config_file]
        if access.port:
            line += ["-p", str(access.port)]
        if access.username:
            line += ["-l", access.username]
        if access.password:
            self._private("password", access.password)
            options["PreferredAuthentications"] = "password,keyboard-interactive"
            options["PubkeyAuthentication"] = "no"
            options["NumberOfPasswordPrompts"] = "1"
        identity = access.identity_file
        if access.private_key:
            identity = self._private("key", access.private_key.strip() + "\n")
        if identity:
            options["IdentityFile"] = _quoted(identity)
            options["IdentitiesOnly"] = "yes"
        options.update(self._known_hosts())
        options.update(self._sharing())
        for name, value in options.items():
            line += ["-o", f"{name}={value}"]
        return [*line, "--", access.host, remote]

    def _sharing(self) -> dict[str, str]:
        """The options to share a connection; never one of the user's, which may end meanwhile."""
        if self._beside and os.path.exists(self._beside.socket):
            self.is_shared = True
            return {"ControlMaster": "no", "ControlPath": _quoted(self._beside.socket)}
        if self._beside or len(os.fsencode(self.socket)) > _MUX_BYTES:
            return {"ControlMaster": "no", "ControlPath": "none"}
        return {"ControlMaster": "yes", "ControlPath": _quoted(self.socket), "ControlPersist": "no"}

    def environment(self) -> dict[str, str]:
        """The process environment for ssh."""
        env = dict(os.environ)
        if self.access.password:
            env.update(
                SSH_ASKPASS=_ASKPASS,
                SSH_ASKPASS_REQUIRE="force",
                KETTER_ASKPASS_FILE=os.path.join(self.folder, "password"),
                DISPLAY=env.get("DISPLAY", ":0"),
            )
        return env

    def explain(self, returncode: int | None, said: str) -> errors.EngineError:
        """What the end of an ssh process means, from its log and what the far side said."""
        host = self.access.host
        log = _text_of(self.log)
        if TOO_OLD in said:
            return errors.NoPython(f"{host} has a Python older than 3.8, too old for the agent")
        if returncode in (126, 127):
            return errors.NoPython(f"{host} has no python3 that could run the agent")
        for pattern, kind, meaning in _MEANINGS:
            if re.search(pattern, log):
                if kind is errors.HostKeyUnknown and self.access.host_key:
                    kind, meaning = _MEANINGS[0][1:]
                return kind(f"{host} {meaning}")
        told = " ".join((log or said).split())[-300:] or f"ssh ended with status {returncode}"
        return errors.ConnectionLost(f"{host}: {told}")

    def _known_hosts(self) -> dict[str, str]:
        if self.access.host_key:
            # The type and the key, nothing else: a second line would pin a second key.
            pinned = " ".join(self.access.host_key.split()[:2])
            return {
                "HostKeyAlias": _ALIAS,
                "UserKnownHostsFile": _quoted(self._private("known_hosts", f"{_ALIAS} {pinned}\n")),
                "GlobalKnownHostsFile": "/dev/null",
            }
        if self.access.known_hosts_file:
            return {
                "UserKnownHostsFile": _quoted(self.access.known_hosts_file),
                "GlobalKnownHostsFile": "/dev/null",
            }
        return {}

    def _private(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return path


def _temporary_folder() -> str:
    """Where temporary files go, as `tempfile` has it; that takes too long to import."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        if os.path.isdir(os.environ.get(name, "")):
            return os.path.abspath(os.environ[name])
    return "/tmp"  # noqa: S108 - a private folder is made in it


def _text_of(path: str) -> str:
    """A file's text; nothing if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _own_folder() -> tuple[str, int]:
    """Make a private folder; returns it, and its descriptor, by which it is locked for our life.

    By the lock others tell it from what a killed worker left; on a file system where folders
    cannot be locked nothing is swept. One that was taken for such before it was locked is
    left to them, and another one made.
    """
    while True:
        folder = os.path.join(_temporary_folder(), f"{_PREFIX}{os.urandom(8).hex()}")
        os.mkdir(folder, 0o700)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(folder, _FOLDER)
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, folder):
                return folder, fd
            os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether that path still leads to the open folder."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_folder(fd: int, folder: str) -> None:
    """Remove a private folder of ours, which is open, with the files in it."""
    for name in os.listdir(fd):
        os.unlink(name, dir_fd=fd)
    os.rmdir(folder)


def sweep() -> None:
    """Remove the private folders of workers that were killed before they could.

    Only this user's own: in a folder that all may write to, others may plant what bears such
    a name. Raises the first OSError after all were tried; the rest is for the next look.
    """
    with os.scandir(_temporary_folder()) as listing:
        folders = [item.path for item in listing if item.name.startswith(_PREFIX)]
    failed: list[OSError] = []
    for folder in folders:
        try:
            fd = os.open(folder, _FOLDER)
        except OSError:
            continue  # No folder, another user's, or gone.
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(fd, folder):
                    _remove_folder(fd, folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # Its worker lives, and may be removing it itself.
        except OSError as error:
            failed.append(error)
        finally:
            os.close(fd)
    if failed:
        raise failed[0]


def _quoted(path: str) -> str:
    """A path as ssh's option takes it: else it splits at blanks and expands percent signs."""
    return '"' + path.replace("%", "%%").replace('"', '\\"') + '"'


@errors.on_this_machine()
def fetch_host_key(access: SshAccess) -> HostKey:
    """The key the host shows now, for a person to compare; nothing is trusted by asking.

    The connection ends after the key exchange: no user name is proven and no
    credential sent. Raises a ConnectError where the host cannot be reached.
    """
    bare = SshAccess(access.host, access.port, "nobody", config_file=access.config_file)
    files = SshFiles(bare)
    known = os.path.join(files.folder, "known_hosts")
    line = files.command("true")
    line[1:1] = [
        "-o", "StrictHostKeyChecking=accept-new",
        "-o", f"UserKnownHostsFile={_quoted(known)}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", f"HostKeyAlias={_ALIAS}",
        "-o", "HashKnownHosts=no",
        "-o", "PreferredAuthentications=none",
        "-o", "HostKeyAlgorithms=^ssh-ed25519",
    ]  # fmt: skip
    try:
        ended = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONNECT_SECONDS * 2,
            start_new_session=True,
            check=False,
        )
        if not os.path.exists(known):
            raise files.explain(ended.returncode, ended.stderr.decode("utf-8", "replace"))
        pinned = _text_of(known).split()[1:3]
    except subprocess.TimeoutExpired:
        raise errors.HostUnreachable(f"{access.host} cannot be reached") from None
    except (FileNotFoundError, PermissionError) as error:
        raise errors.AgentFailed(f"{error.filename} cannot be started: {error}") from error
    finally:
        files.remove()
    return HostKey(" ".join(pinned), fingerprint(" ".join(pinned)))


def fingerprint(line: str) -> str:
    """A public key's fingerprint as `ssh-keygen -l` shows it; ValueError if it is no key."""
    import base64
    import hashlib

    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except IndexError:
        raise ValueError("a host key is a type and a base64 text") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
