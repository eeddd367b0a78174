"""A real sshd of this user on loopback, with keys of its own.

It needs no root, no account and nothing from `~/.ssh`: one throw-away folder
holds the host key, the client key, both configurations and the home folder
that sessions see. When it stops, the listener and every session it started
are gone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

#: What a login finds on its PATH; the system's own folders, not this user's.
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
READY_SECONDS = 15.0


class RigError(Exception):
    """The rig could not be set up; one sentence says what is missing."""


class Sshd:
    """One sshd on 127.0.0.1 that lets exactly one key in, as the user who runs the tests.

    `ssh_config` is a complete client configuration for `ssh -F`; `host_key` is
    the public key line one would pin.
    """

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.username = pwd.getpwuid(os.geteuid()).pw_name
        self.port = 0
        self.host_key = ""
        self._mark = f"KETTER_RIG={uuid.uuid4().hex}"
        self._path = SYSTEM_PATH
        self._force_command = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sshd:
        """Make the folder and the keys, start listening, return once it answers."""
        self.folder = Path(tempfile.mkdtemp(prefix="ketter-sshd-"))
        self.home = self.folder / "home"
        self.home.mkdir()
        self.identity_file = make_key(self.folder / "client_key")
        self.authorized_keys = self.folder / "authorized_keys"
        self.authorized_keys.write_text(public_line(self.identity_file) + "\n")
        self.known_hosts = self.folder / "known_hosts"
        self.ssh_config = self.folder / "ssh_config"
        self.log = self.folder / "sshd.log"
        self._host_key_file = make_key(self.folder / "host_key")
        self.host_key = public_line(self._host_key_file)
        self.port = free_port()
        try:
            self._listen()
        except BaseException:
            self.stop()
            raise
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {self.host_key}\n")
        self._write_client_config()
        return self

    def stop(self) -> None:
        """End the listener and all its sessions, and remove the folder."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Sshd:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def rotate_host_key(self) -> None:
        """Show another host key from now on; `known_hosts` keeps the old one."""
        self._end()
        self._host_key_file = make_key(self.folder / "host_key_rotated")
        self.host_key = public_line(self._host_key_file)
        self._listen()

    def refuse_client_key(self) -> None:
        """Let no key in any more."""
        self.authorized_keys.write_text("")

    def hide_python(self, instead: str = "") -> None:
        """Give logins a PATH with the usual small tools, and no python or a script `instead`."""
        tools = self.folder / "bin"
        tools.mkdir()
        for name in ("sh", "cat", "ls", "env", "uname", "mkdir", "rm", "true"):
            found = shutil.which(name, path=SYSTEM_PATH)
            if found:
                (tools / name).symlink_to(found)
        if instead:
            (tools / "python3").write_text(instead)
            (tools / "python3").chmod(0o755)
        self._path = str(tools)
        self._restart()

    def greet(self, noise: str) -> None:
        """Print `noise` on stdout before every command, as a chatty .bashrc does."""
        script = self.folder / "chatty_login"
        script.write_text(
            f"#!/bin/sh\nprintf '%s' {shlex.quote(noise)}\n"
            'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        script.chmod(0o755)
        self._force_command = str(script)
        self._restart()

    @property
    def pid(self) -> int:
        """The listener's; -1 while there is none."""
        return self._process.pid if self._process else -1

    def greet_with(self, noise: bytes) -> Path:
        """Likewise, with any bytes; a file of that name is there once a login has printed them."""
        noisy, done = self.folder / "noise", self.folder / "greeted"
        noisy.write_bytes(noise)
        self.greet("")
        script = self.folder / "chatty_login"
        quoted = [shlex.quote(str(path)) for path in (noisy, done)]
        greeting = f"cat {quoted[0]}; : > {quoted[1]}"
        script.write_text(script.read_text().replace("printf '%s' ''", greeting, 1))
        self._restart()
        return done

    def sessions(self) -> list[int]:
        """Pids of everything that runs because somebody logged in here."""
        return sorted(set(descendants(self.pid)) | set(marked(self._mark)))

    def _restart(self) -> None:
        self._end()
        self._listen()

    def _listen(self) -> None:
        sshd = find_sshd()
        config = self._write_server_config()
        # Newer servers answer a few failed logins by ignoring the client for a while.
        gentle = ["-o", "PerSourcePenalties=no"]
        base = [sshd, "-f", str(config)]
        checked = subprocess.run([*base, "-t", *gentle], capture_output=True, check=False)
        if checked.returncode != 0:
            gentle = []
        # On Linux the listener ends even when the test run is killed.
        tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*tied, *base, *gentle, "-D", "-E", str(self.log)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_banner(self.host, self.port, self._process, self.log)

    def _end(self) -> None:
        if self._process is None:
            return
        end_tree(self._process.pid)
        self._process.wait()
        self._process = None
        for pid in marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _write_server_config(self) -> Path:
        lines = [
            *server_lines(self.host, self.port, self._host_key_file, self.authorized_keys),
            f"UsePAM {'yes' if root_is_locked() else 'no'}",
            "PasswordAuthentication no",
            f"SetEnv {self._mark} PATH={self._path} HOME={self.home}",
        ]
        if self._force_command:
            lines.append(f"ForceCommand {self._force_command}")
        config = self.folder / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        return config

    def _write_client_config(self) -> None:
        self.ssh_config.write_text(
            "Host *\n"
            f"  HostName {self.host}\n"
            f"  Port {self.port}\n"
            f"  User {self.username}\n"
            f"  IdentityFile {self.identity_file}\n"
            "  IdentitiesOnly yes\n"
            "  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n"
        )


def server_lines(host: str, port: int, host_key: Path, authorized_keys: Path) -> list[str]:
    """The part of an sshd_config that every sshd of the rig shares."""
    return [
        f"ListenAddress {host}",
        f"Port {port}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {authorized_keys}",
        "PidFile none",
        "StrictModes no",  # The keys lie below a temporary folder, which StrictModes distrusts.
        "PermitRootLogin yes",
        "KbdInteractiveAuthentication no",
        "MaxStartups 500",
        "MaxSessions 500",
        "PrintMotd no",
        "PrintLastLog no",
        "UseDNS no",
        "LogLevel VERBOSE",
        "Subsystem sftp internal-sftp",
    ]


def root_is_locked() -> bool:
    """Whether we are root with a locked account, which sshd only lets in through PAM."""
    if os.geteuid() != 0 or not os.access("/etc/shadow", os.R_OK):
        return False
    fields = [line.split(":") for line in Path("/etc/shadow").read_text().splitlines()]
    return any(name == "root" and secret.startswith("!") for name, secret, *_ in fields)


def find_sshd() -> str:
    """The absolute path of sshd (it insists on one), with its privilege folder in place."""
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RigError(
            "sshd is not installed; run deploy/test.sh as root once, or install openssh-server."
        )
    if os.geteuid() == 0:
        # Made at boot by the package; a machine that never booted the service lacks it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return found


def make_key(path: Path) -> Path:
    """Make an ed25519 key pair without a passphrase; `path` is its private half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ketter-rig", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def public_line(private: Path) -> str:
    """The public half as `ssh-ed25519 AAAA…`, without the comment."""
    return " ".join(private.with_suffix(".pub").read_text().split()[:2])


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_for_banner(host: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once an SSH server answers; raise with its own words if it never does."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as client:
            if client.recv(4) == b"SSH-":
                return
        time.sleep(0.02)
    said = log.read_text(errors="replace") if log.exists() else "nothing"
    raise RigError(f"sshd did not come up on {host}:{port}; it said: {said}")


def end_tree(pid: int) -> None:
    """Kill a process and everything below it; stopped first, so that none can fork away."""
    frozen: list[int] = []
    fresh = [pid]
    while fresh:
        for one in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        frozen += fresh
        fresh = [one for one in descendants(pid) if one not in frozen]
    for one in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def descendants(pid: int, but: Collection[int] = ()) -> list[int]:
    """Pids of children, grandchildren and so on, nearest first; without the branches `but`."""
    parents = {child: parent for child, parent, _ in _processes()}
    found: list[int] = []
    nearest = [pid]
    while nearest:
        nearest = [
            child for child, parent in parents.items() if parent in nearest and child not in but
        ]
        found += nearest
    return found


def marked(mark: str) -> list[int]:
    """Pids of processes with `mark` (`NAME=value`) in their environment."""
    return [pid for pid, _, environment in _processes() if mark in environment]


def _processes() -> Iterator[tuple[int, int, list[str]]]:
    """Every process with its parent and what is readable of its environment.

    Without zombies: they are dead, only their parents have not looked yet.
    """
    if sys.platform != "linux":
        yield from _processes_by_ps()
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text("utf-8", "replace")
            state, parent, *_ = status.rpartition(")")[2].split()
            environment = (folder / "environ").read_text("utf-8", "replace").split("\0")
        except PermissionError:
            environment = []  # Another user's.
        except OSError:
            continue  # It has ended meanwhile.
        if state != "Z":
            yield int(folder.name), int(parent), environment


def _processes_by_ps() -> Iterator[tuple[int, int, list[str]]]:
    columns = ["ps", "axewwo", "pid=,ppid=,stat=,command="]
    with subprocess.Popen(columns, stdout=subprocess.PIPE) as listing:
        listed, _ = listing.communicate()
    for line in listed.decode(errors="replace").splitlines():
        pid, parent, state, *words = line.split()
        if int(pid) != listing.pid and not state.startswith("Z"):
            yield int(pid), int(parent), words
