"""A host that several users share: `ketter`, who runs Ketter, `mallory` and `bob`.

It is one set of Linux namespaces on this machine, with its own /etc/passwd, /proc, /tmp, homes and
loopback network, and an sshd for the accounts of mallory and bob. The checkout is seen
there as /srv/ketter. `Host.start` runs a program there as any of the users; `Host.there` is where
the test finds a path of the host.

One process holds the namespaces and waits on a pipe from the test run. However the run ends, the
pipe closes and the kernel takes everything with it. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rig.project import PROJECT
from tests.rig.sshd import (
    SYSTEM_PATH,
    RigError,
    descendants,
    find_sshd,
    make_key,
    public_line,
    server_lines,
)
from tests.rig.two_hosts import hash_password
from tests.rig.waiting import wait_until

#: The users of the host, with their numbers there.
USERS = {"root": 0, "ketter": 20077, "mallory": 20078, "bob": 20079}
#: Who runs Ketter: root, and an ordinary user.
RUNNERS = ("root", "ketter")
#: Accounts that are reached by ssh.
ACCOUNTS = ("mallory", "bob")
PASSWORD = "Klappe 1: 'so' \"und\" $so"
#: Where the host sees the checkout.
CHECKOUT = "/srv/ketter"
PORT = 22
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The interpreter that every user of the host has.
SYSTEM_PYTHON = "/usr/bin/python3"
#: An honest program of a test takes at most so long, on a busy machine.
LIMIT_SECONDS = 90.0

_SETUP = """
ip link set lo up
hostname shared
mount -t tmpfs -o mode=755 srv /srv
mkdir /srv/ketter
mount --bind "$REPO" /srv/ketter
mount --bind "$BASE/etc/passwd" /etc/passwd
mount --bind "$BASE/etc/shadow" /etc/shadow
mount --bind "$BASE/etc/group" /etc/group
mount --bind "$BASE/etc/ssh" /etc/ssh
mkdir -p /srv/python
if [ -n "$PYTHON" ]; then mount --bind "$PYTHON" /srv/python; fi
mount -t tmpfs -o mode=711 root /root
if [ -n "$PYTHON" ]; then mkdir -p "$PYTHON"; mount --bind /srv/python "$PYTHON"; fi
mount -t tmpfs -o mode=755 home /home
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
"""


def missing() -> str:
    """Why this machine cannot hold the host, or nothing if it can."""
    if os.geteuid() != 0:
        return "only root can make a host with other users (it needs unshare, nsenter, setpriv)"
    needed = ("ip", "unshare", "nsenter", "mount", "setpriv", "hostname")
    if lacking := [name for name in needed if shutil.which(name) is None]:
        return f"the rig of several users needs {', '.join(lacking)}"
    allowed = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        check=False,
    )
    return "" if allowed.returncode == 0 else "the rig of several users may make no namespaces here"


class Host:
    """The host while it is held."""

    port = PORT

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self._inside: list[str] = []
        self._root = Path("/")
        self._pids = 0

    def __enter__(self) -> Host:
        self.folder = Path(tempfile.mkdtemp(prefix="ketter-users-"))
        try:
            self._prepare_logins(self.folder / "etc")
            self._hold()
            self._make_homes()
            self._serve()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder:
            assert self._holder.stdin
            assert self._holder.stdout
            self._holder.stdin.close()  # The host's first process sees that, and ends.
            self._holder.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._holder.wait(10)
            self._holder.kill()
            self._holder.wait()
            self._holder = None
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what a test does there ----------------------------------------------------

    def there(self, path: str | Path) -> Path:
        """Where the test, which is outside, finds a path of the host."""
        return self._root / str(path).lstrip("/")

    def start(
        self,
        user: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] = {},
        cwd: str = CHECKOUT,
        given: str = "",
    ) -> Program:
        """Start a program as a user, with a clean environment; `given` is its standard input."""
        uid = USERS[user]
        become = [] if uid == 0 else ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
        if become:
            become.append("--clear-groups")
        clean = {"PATH": STANDARD_PATH, "HOME": home(user), "LANG": "C.UTF-8", **env}
        settings = [f"{name}={value}" for name, value in clean.items()]
        line = ["nsenter", *self._inside, "--", *become, "env", "-i", "-C", cwd, *settings]
        return Program([*line, *map(str, argv)], given)

    def run(
        self,
        user: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] = {},
        cwd: str = CHECKOUT,
    ) -> tuple[int, str]:
        """Run a program to its end: its status, and what it said on both streams."""
        return self.start(user, argv, env, cwd).finish()

    def act(self, user: str, code: str, *words: str | Path) -> str:
        """Run some Python as a user, by the system's own interpreter; what it printed."""
        status, said = self.run(user, [SYSTEM_PYTHON, "-c", code, *words], cwd="/")
        assert status == 0, said
        return said

    def cli(self, user: str, *words: str | Path, env: Mapping[str, str] = {}) -> Program:
        """Start the engine's command line as a user."""
        return self.start(user, [*python(), "-m", "engine.cli", *words], env)

    def ssh(self, user: str, account: str, path: str) -> list[str]:
        """An address of an account here, and what the command line needs to log in to it."""
        keys = f"{home(user)}/keys"
        return [f"ssh://{account}@127.0.0.1:{PORT}{path}", "--identity", f"{keys}/key",
                "--known-hosts", f"{keys}/known_hosts"]  # fmt: skip

    def processes(self) -> dict[int, bytes]:
        """Every process of the host, by its number outside, with its command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "ns/pid").stat().st_ino == self._pids:
                    found[int(folder.name)] = (folder / "cmdline").read_bytes()
        return found

    def end_processes_of(self, user: str) -> None:
        """Kill what a user runs on the host."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}").stat().st_uid == USERS[user]:
                    os.kill(pid, signal.SIGKILL)

    # -- how it is made ----------------------------------------------------------------

    def _prepare_logins(self, etc: Path) -> None:
        (etc / "ssh").mkdir(parents=True)
        made = {name: uid for name, uid in USERS.items() if uid}
        users = [f"{name}:x:{uid}:{uid}::{home(name)}:/bin/sh" for name, uid in made.items()]
        groups = [f"{name}:x:{uid}:" for name, uid in made.items()]
        hashed = hash_password(PASSWORD)
        shadow = ["root:*:19000::::::", *(f"{name}:{hashed}:19000::::::" for name in made)]
        for name, lines in (("passwd", users), ("group", groups)):
            system = Path(f"/etc/{name}").read_text()
            (etc / name).write_text(system + "\n".join(lines) + "\n")
        (etc / "shadow").write_text("\n".join(shadow) + "\n")
        (etc / "shadow").chmod(0o600)
        self.client_key = make_key(self.folder / "client_key")
        self.host_key = public_line(make_key(etc / "ssh" / "host_key"))
        (etc / "ssh" / "authorized_keys").write_text(public_line(self.client_key) + "\n")
        seen = Path("/etc/ssh")
        lines = [
            *server_lines("127.0.0.1", PORT, seen / "host_key", seen / "authorized_keys"),
            "UsePAM no",
            "PasswordAuthentication yes",
            "Match User mallory",
            f"  SetEnv PATH=/home/mallory/bin:{SYSTEM_PATH}",
            "Match all",
            f"  SetEnv PATH={SYSTEM_PATH}",
        ]
        (etc / "ssh" / "sshd_config").write_text("\n".join(lines) + "\n")

    def _hold(self) -> None:
        kinds = ["--mount", "--net", "--uts", "--ipc", "--pid"]
        script = f"set -e\n{_SETUP}\necho ready\nexec cat\n"
        base = sys.base_prefix if not sys.base_prefix.startswith("/usr") else ""
        self._holder = subprocess.Popen(
            ["unshare", *kinds, "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "BASE": str(self.folder),
                "REPO": str(PROJECT),
                "PYTHON": base,
            },
        )
        assert self._holder.stdout
        if self._holder.stdout.readline() != b"ready\n":
            raise RigError("the host of several users could not be set up; see above.")
        pid = self._holder.pid
        first = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        self._inside = ["--target", first, *kinds]
        self._root = Path(f"/proc/{first}/root")
        self._pids = Path(f"/proc/{first}/ns/pid").stat().st_ino

    def _make_homes(self) -> None:
        for name, uid in USERS.items():
            own = self.there(home(name))
            own.mkdir(exist_ok=True)
            keys = own / "keys"
            keys.mkdir(mode=0o700)
            shutil.copy(self.client_key, keys / "key")
            (keys / "known_hosts").write_text(f"[127.0.0.1]:{PORT} {self.host_key}\n127.0.0.1 {self.host_key}\n")  # noqa: E501  # fmt: skip
            for path in (own, keys, *keys.iterdir()):
                os.chown(path, uid, uid)
            (keys / "key").chmod(0o600)
            own.chmod(0o711)
            if name not in RUNNERS:
                shutil.rmtree(keys)

    def _serve(self) -> None:
        status, said = self.run("root", [find_sshd(), "-E", "/etc/ssh/sshd.log"])
        if status:
            raise RigError(f"sshd did not start on the host of several users: {said}")
        knock = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; head -c 4 <&3"]
        wait_until(lambda: self.run("root", knock)[1] == "SSH-")
        for runner in RUNNERS:
            status, said = self.run(runner, [*python(), "-c", "import engine.cli.__main__"])
            if status:
                raise RigError(f"{runner} cannot run Ketter on the host of several users: {said}")


class Program:
    """A program on the host."""

    def __init__(self, line: Sequence[str], given: str = "") -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `finish` or `end`)
        with tempfile.TemporaryFile() as words:
            words.write(given.encode())
            words.seek(0)
            self._process = subprocess.Popen(
                line, stdin=words, stdout=self._said, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """The program's own process id, as the test sees it; -1 before it has one."""
        # nsenter forks, and waits: what it has become lies below it.
        below = descendants(self._process.pid)
        return below[0] if below else -1

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def said(self) -> str:
        """What it has said on both streams so far."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), size, 0).decode("utf-8", "surrogateescape")

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def finish(self, seconds: float = LIMIT_SECONDS) -> tuple[int, str]:
        """Wait for its end, and no longer: its status, and what it said."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            said = self.end()
            raise AssertionError(f"no end within {seconds} s; it said: {said[-2000:]}") from None
        said = self.said()
        self._said.close()
        return status, said

    def end(self) -> str:
        """End it and all below it; what it has said."""
        if self._process.poll() is None:
            for pid in (*descendants(self._process.pid), self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        said = self.said()
        self._said.close()
        return said

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._said.closed:
            self.end()


def home(user: str) -> str:
    """A user's home folder."""
    return "/root" if user == "root" else f"/home/{user}"


def python() -> list[str]:
    """The tests' own Python, as the host sees it."""
    own = Path(sys.executable)
    inside = f"{CHECKOUT}/{own.relative_to(PROJECT)}" if own.is_relative_to(PROJECT) else str(own)
    return [inside, "-B"]
