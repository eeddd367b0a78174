"""One sshd with many accounts, each with a shell, a home and limits of its own.

It runs in namespaces of mounts and processes, where /etc/passwd and /etc/shadow are its own: no
account is made on this machine. It listens on loopback. When the test run ends, however it does,
the kernel ends all its processes. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine import Endpoint, SshAccess
from tests.rig.sshd import (
    SYSTEM_PATH,
    RigError,
    find_sshd,
    free_port,
    make_key,
    public_line,
    server_lines,
    wait_for_banner,
)
from tests.rig.two_hosts import hash_password

#: The first account's user and group id; the next ones follow.
FIRST_ID = 20200
HOST = "127.0.0.1"

_SETUP = """
mount --bind "$BASE/etc/passwd" /etc/passwd
mount --bind "$BASE/etc/shadow" /etc/shadow
exec "$SSHD" -D -f "$BASE/etc/sshd_config" -E "$BASE/etc/log"
"""


@dataclass(frozen=True)
class Account:
    """An account: its shell (`~/` is its home), the files in its home, the server's lines for it.

    A file that begins with `#!` is a program. `prepare` is a shell script that root runs in the
    home. Who has a `password` logs in with it, not with the key, and it has expired.
    """

    shell: str = "/bin/bash"
    home: Mapping[str, str] = field(default_factory=dict)
    server: tuple[str, ...] = ()
    prepare: str = ""
    password: str = ""


def missing() -> str:
    """Why this machine cannot hold such a host, or nothing if it can."""
    if os.geteuid() != 0:
        return "only root can have accounts of its own"
    tried = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True).returncode:
        return "namespaces cannot be made here"
    return ""


class FarHost:
    """The sshd and its accounts, by name."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> FarHost:
        self.folder = Path(tempfile.mkdtemp(prefix="ketter-accounts-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()  # unshare: with it the kernel ends all in its namespaces.
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process that holds the host."""
        assert self._process
        return self._process.pid

    def place(self, name: str) -> Path:
        """A folder of an account's own, outside its home, that this process sees, too."""
        return self.folder / "places" / name

    def give(self, path: Path, name: str) -> None:
        """Have an account own a tree."""
        user = FIRST_ID + list(self._accounts).index(name)
        for folder, folders, files in os.walk(path):
            for entry in (*folders, *files):
                os.lchown(os.path.join(folder, entry), user, user)
        os.chown(path, user, user)

    def endpoint(self, name: str, path: str) -> Endpoint:
        """A path in an account's place as an end of a transfer."""
        access = SshAccess(
            host=HOST,
            port=self.port,
            username=name,
            identity_file=str(self.folder / "client_key"),
            host_key=self._host_key,
        )
        if password := self._accounts[name].password:
            access = access._replace(password=password, identity_file="")
        return Endpoint(str(self.place(name)), path, access)

    def _start(self) -> None:
        self.folder.chmod(0o755)
        etc = self.folder / "etc"
        for folder in (etc, self.folder / "homes", self.folder / "places"):
            folder.mkdir()
        key = make_key(self.folder / "client_key")
        (etc / "keys").write_text(public_line(key) + "\n")
        self._host_key = public_line(make_key(etc / "host_key"))
        self.port = free_port()
        users, secrets, matches = [], [], []
        for number, (name, account) in enumerate(self._accounts.items()):
            user, home = FIRST_ID + number, self._home(name, account, FIRST_ID + number)
            shell = account.shell.replace("~", str(home), 1)
            users.append(f"{name}:x:{user}:{user}::{home}:{shell}\n")
            expired = f"{hash_password(account.password)}:0"
            secrets.append(f"{name}:{expired if account.password else '*:19000'}::::::\n")
            if account.server:
                matches += [f"Match User {name}", *account.server]
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + "".join(users))
        (etc / "shadow").write_text("root:*:19000::::::\n" + "".join(secrets))
        (etc / "shadow").chmod(0o600)
        lines = [
            *server_lines(HOST, self.port, etc / "host_key", etc / "keys"),
            "UsePAM no",
            "PasswordAuthentication no",
            "PerSourcePenalties no",
            f"SetEnv PATH={SYSTEM_PATH}",
            *matches,
        ]
        self._listen(etc, lines)

    def _listen(self, etc: Path, lines: list[str]) -> None:
        sshd, config = find_sshd(), etc / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        if subprocess.run([sshd, "-t", "-f", str(config)], capture_output=True).returncode:
            lines.remove("PerSourcePenalties no")  # Only newer servers have it.
            config.write_text("\n".join(lines) + "\n")
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *apart, "--", "sh", "-euc", _SETUP],
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "BASE": str(self.folder), "SSHD": sshd},
            start_new_session=True,
        )
        wait_for_banner(HOST, self.port, self._process, etc / "log")

    def _home(self, name: str, account: Account, user: int) -> Path:
        home = self.folder / "homes" / name
        home.mkdir()
        for file, text in account.home.items():
            path = home / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)
        self.place(name).mkdir()
        self.give(home, name)
        self.give(self.place(name), name)
        done = subprocess.run(
            ["sh", "-euc", account.prepare or "true"], cwd=home, capture_output=True, text=True
        )
        if done.returncode:
            raise RigError(f"the home of {name} could not be prepared: {done.stderr}")
        return home
