"""A database whose host vanishes without a word: two addresses behind a cable, one taken away.

Two network namespaces are joined by one virtual cable. In the far one a relay listens at both
addresses and leads to the Unix socket of the run's Postgres; what is started `here` reaches it
through the cable only. `vanish` takes the first address from its host: packets to it are still
sent, and nothing answers, as when a machine loses its power. The kernel removes all of it with
the two processes that hold the namespaces. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

FIRST, SECOND, OWN = "10.78.5.2", "10.78.5.3", "10.78.5.1"
PORT = 8432

_RELAY = f"""
import asyncio, sys

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()

async def serve(reader, writer):
    far = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(copy(reader, far[1]), copy(far[0], writer))

async def main():
    for address in ({FIRST!r}, {SECOND!r}):
        await asyncio.start_server(serve, address, {PORT})
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def missing() -> str:
    """Why this machine cannot hold the two namespaces, or nothing if it can."""
    if os.geteuid() != 0:
        return "a vanishing host needs root"
    if lacking := [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]:
        return f"a vanishing host needs {', '.join(lacking)}"
    allowed = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if allowed.returncode == 0 else "no network namespaces can be made here"


class VanishingHost:
    """The two namespaces and the relay; `with` brings them up and takes them away."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> VanishingHost:
        try:
            self._near, self._far = self._hold(), self._hold()
            self._wire()
            relay = [sys.executable, "-c", _RELAY, self._socket]
            process = self._started([*self._in(self._far), *relay], stdout=subprocess.PIPE)
            assert process.stdout
            if process.stdout.readline() != b"up\n":
                raise RuntimeError("the relay did not come up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout)):
                stream.close()

    def here(self, command: Sequence[str]) -> list[str]:
        """The command as it must be spelled to run where the database is behind the cable."""
        return [*self._in(self._near), *command]

    def vanish(self) -> None:
        """Take the first address away; whoever speaks to it hears nothing from now on."""
        self._run(self._far, f"ip addr del {FIRST}/24 dev db")

    def _hold(self) -> int:
        """Make a namespace, held by a process that ends when this one does."""
        process = self._started(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        ours = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{process.pid}/ns/net") == ours:
            time.sleep(0.01)
        return process.pid

    def _wire(self) -> None:
        for pid in (self._near, self._far):
            self._run(pid, "ip link set lo up")
        cable = f"ip link add here type veth peer name db netns {self._far}"
        self._run(self._near, cable)
        self._run(self._near, f"ip addr add {OWN}/24 dev here")
        # The order decides which of them is the secondary one, which goes with the primary.
        for address in (SECOND, FIRST):
            self._run(self._far, f"ip addr add {address}/24 dev db")
        self._run(self._far, "ip link set db address 02:00:00:00:05:02 up")
        self._run(self._near, "ip link set here up")
        for address in (FIRST, SECOND):  # No word from the kernel either that nobody has it.
            self._run(
                self._near,
                f"ip neigh replace {address} lladdr 02:00:00:00:05:02 dev here nud permanent",
            )

    def _in(self, pid: int) -> list[str]:
        return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]

    def _run(self, pid: int, command: str) -> None:
        subprocess.run([*self._in(pid), *command.split()], check=True, timeout=10)

    def _started(self, command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = subprocess.Popen(command, **streams)
        self._processes.append(process)
        return process
