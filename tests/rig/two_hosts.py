"""Two hosts on one machine: LAB and SRVTRF, each with a network and a /srv of its own.

Both are Linux namespaces joined by one virtual cable, so a transfer from LAB
to SRVTRF can only work over the network: the same path names different
folders. SRVTRF does not even see this repository or the temporary folder. It
has its own /etc/passwd with the user `ketter`, whose password is known.

Each host is held by one process that waits on a pipe from the test run.
However the run ends, the pipe closes, the process ends, and the kernel takes
the namespaces, their mounts, their addresses and all of SRVTRF's processes
with it. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.rig.project import PROJECT
from tests.rig.sshd import (
    SYSTEM_PATH,
    RigError,
    find_sshd,
    make_key,
    public_line,
    server_lines,
)

LAB_ADDRESS = "10.77.0.1"
SRVTRF_ADDRESS = "10.77.0.2"
#: On LAB's network, but nobody has it: packets to it vanish.
DEAD_ADDRESS = "10.77.0.9"
USERNAME = "ketter"
PASSWORD = "Klappe 1, die 2te: 'so' \"und\" $so"
UID = 20077

_LAB = """
ip link set lo up
hostname lab
mount --bind "$BASE/lab" /srv
"""

_SRVTRF = """
ip link set lo up
hostname srvtrf
mount --bind "$BASE/etc/passwd" /etc/passwd
mount --bind "$BASE/etc/shadow" /etc/shadow
mount --bind "$BASE/etc/ssh" /etc/ssh
mount --bind "$BASE/srvtrf" /srv
mount -t tmpfs -o mode=755 nothing "$REPO"
mount -t tmpfs -o mode=755 home /home
mkdir /home/ketter
mount --bind "$BASE/home" /home/ketter
mount -t tmpfs -o mode=1777 tmp "$TEMP"
"""


def missing() -> str:
    """Why this machine cannot hold the two hosts, or nothing if it can."""
    if os.geteuid() != 0:
        return "the two-host rig needs root"
    needed = ("ip", "unshare", "nsenter", "mount", "hostname")
    if lacking := [name for name in needed if shutil.which(name) is None]:
        return f"the two-host rig needs {', '.join(lacking)}"
    if PROJECT.is_relative_to("/srv"):
        return "the two-host rig replaces /srv, and this repository lies below it"
    allowed = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        check=False,
    )
    return "" if allowed.returncode == 0 else "the two-host rig may not make namespaces here"


def hash_password(password: str) -> str:
    """The password as /etc/shadow keeps it, by the library that sshd itself asks."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    salted: bytes = library.crypt(password.encode(), b"$6$ketter$")
    return salted.decode()


class TwoHosts:
    """LAB and SRVTRF, wired; SRVTRF runs an sshd that takes a key and a password.

    `lab_root` and `srvtrf_root` are where the test sees what either host sees
    as `/srv`. `host_key` and `identity_file` are what LAB needs to log in.
    """

    srv = "/srv"
    host = SRVTRF_ADDRESS
    port = 22
    username = USERNAME
    password = PASSWORD
    dead_host = DEAD_ADDRESS

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self._lab: list[str] = []
        self._srvtrf: list[str] = []

    def start(self) -> TwoHosts:
        """Bring both hosts up, return once SRVTRF answers LAB."""
        self.folder = Path(tempfile.mkdtemp(prefix="ketter-rig-"))
        try:
            self._prepare_folders()
            self._lab = self._hold(_LAB, [])
            self._srvtrf = self._hold(_SRVTRF, ["--pid", "--fork", "--kill-child", "--mount-proc"])
            self._wire()
            self._serve()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process on either host; the kernel removes the rest."""
        for pid in self._lab_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for holder in self._holders:
            assert holder.stdin
            assert holder.stdout
            holder.stdin.close()  # The host's first process sees the end of its input and ends.
            holder.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                holder.wait(10)
            holder.kill()
            holder.wait()
        self._holders.clear()
        self._lab = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> TwoHosts:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def in_lab(self, command: Sequence[str], cwd: Path = PROJECT) -> list[str]:
        """The command as it must be spelled to run on LAB, as the very process one starts."""
        return ["nsenter", *self._lab, "--", "env", "-C", str(cwd), *command]

    def run_in_lab(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on LAB to its end and hand back what it said."""
        return subprocess.run(
            self.in_lab(command),
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def on_srvtrf(self, command: Sequence[str]) -> str:
        """What a command prints when root runs it on SRVTRF itself."""
        inside = ["nsenter", *self._srvtrf, "--", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=True).stdout

    @contextlib.contextmanager
    def slow_line(self, mbit: int) -> Iterator[None]:
        """Let no more than so many Mbit/s leave LAB for a while."""
        shaping = f"tc qdisc replace dev eth0 root tbf rate {mbit}mbit burst 256k latency 200ms"
        answer = self.run_in_lab(shaping.split())
        if answer.returncode != 0:
            raise RigError(f"this kernel cannot slow the line: {answer.stderr}")
        try:
            yield
        finally:
            self.run_in_lab(["tc", "qdisc", "del", "dev", "eth0", "root"])

    def _prepare_folders(self) -> None:
        for name in ("lab", "srvtrf", "home", "etc/ssh"):
            (self.folder / name).mkdir(parents=True)
        self.lab_root = self.folder / "lab"
        self.srvtrf_root = self.folder / "srvtrf"
        for owned in (self.srvtrf_root, self.folder / "home"):
            os.chown(owned, UID, UID)
        self._prepare_logins(self.folder / "etc")

    def _prepare_logins(self, etc: Path) -> None:
        hashed = hash_password(PASSWORD)
        user = f"{USERNAME}:x:{UID}:{UID}::/home/{USERNAME}:/bin/sh\n"
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + user)
        (etc / "shadow").write_text(f"root:*:19000::::::\n{USERNAME}:{hashed}:19000::::::\n")
        (etc / "shadow").chmod(0o600)
        self.identity_file = make_key(self.folder / "client_key")
        self.host_key = public_line(make_key(etc / "ssh" / "host_key"))
        (etc / "ssh" / "authorized_keys").write_text(public_line(self.identity_file) + "\n")
        seen = Path("/etc/ssh")  # Where SRVTRF sees this folder.
        lines = [
            *server_lines("0.0.0.0", self.port, seen / "host_key", seen / "authorized_keys"),
            "UsePAM no",
            "PasswordAuthentication yes",
            f"SetEnv PATH={SYSTEM_PATH}",
        ]
        (etc / "ssh" / "sshd_config").write_text("\n".join(lines) + "\n")

    def _hold(self, setup: str, more: list[str]) -> list[str]:
        """Make one host; what comes back are nsenter's options to enter it."""
        script = f"set -e\n{setup}\necho $$ ready\nexec cat\n"
        kinds = ["--net", "--mount", "--uts"]
        holder = subprocess.Popen(
            ["unshare", *kinds, *more, "--", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "BASE": str(self.folder),
                "REPO": str(PROJECT),
                "TEMP": tempfile.gettempdir(),
            },
        )
        self._holders.append(holder)
        assert holder.stdout
        if not holder.stdout.readline().endswith(b"ready\n"):
            raise RigError("a host of the two-host rig could not be set up; see above.")
        pid = holder.pid
        if more:  # With a pid namespace the host is held by unshare's child.
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
            kinds = [*kinds, "--pid"]
        return ["--target", str(pid), *kinds]

    def _wire(self) -> None:
        """Lay a cable between the hosts; neither end ever shows up on this machine."""
        lab, srvtrf = self._lab[1], self._srvtrf[1]
        cable = f"link add eth0 netns {lab} type veth peer name eth0 netns {srvtrf}"
        subprocess.run(["ip", *cable.split()], check=True)
        for host, address in ((self._lab, LAB_ADDRESS), (self._srvtrf, SRVTRF_ADDRESS)):
            for command in (f"addr add {address}/24 dev eth0", "link set eth0 up"):
                subprocess.run(["nsenter", *host, "--", "ip", *command.split()], check=True)

    def _serve(self) -> None:
        sshd = find_sshd()
        try:
            self.on_srvtrf([sshd, "-E", "/etc/ssh/sshd.log"])
        except subprocess.CalledProcessError as error:
            raise RigError(f"sshd did not start on SRVTRF: {error.stderr}") from error
        knock = f"exec 3<>/dev/tcp/{self.host}/{self.port}; head -c 4 <&3"
        answer = self.run_in_lab(["bash", "-c", f"timeout 10 bash -c {shlex.quote(knock)}"])
        if answer.stdout != "SSH-":
            raise RigError(f"SRVTRF does not answer LAB: {answer.stderr}")

    def _lab_processes(self) -> list[int]:
        """Everything that runs on LAB, except the process that holds it."""
        if not self._lab:
            return []
        network = os.stat(f"/proc/{self._lab[1]}/ns/net").st_ino
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns/net").stat().st_ino == network:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != int(self._lab[1])]
