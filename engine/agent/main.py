"""The agent's loop: a command comes in on stdin, its answer goes out on stderr."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
import time
from typing import Any, BinaryIO, Callable

from engine.agent import publish, wire
from engine.agent.receiver import Receiver, digest_file, discard
from engine.agent.scan import Filter, scan
from engine.agent.sender import Outlet, Sender
from engine.agent.staging import Staging, make_durable
from engine.agent.tree import Tree, entry_of, open_real, resolve
from engine.agent.wire import JSON, MAGIC, AgentError, EndOfStream, Entry, encode, explain

#: Seconds between two signs of life, and between two reports of progress.
BEAT_SECONDS, PROGRESS_SECONDS = 3.0, 0.3
#: Entries in one answer of a scan.
BATCH = 2000


class Agent:
    """One end of a transfer: state between commands, and a method `do_<op>` per command."""

    def __init__(self, stdin: BinaryIO, token: str) -> None:
        self._stdin = stdin
        self._token = token
        self._speaking = threading.Lock()
        self._last_report = 0.0
        self._tree: Tree | None = None
        self._real = ""
        self._staging: Staging | None = None
        self._outlet = Outlet(1, 0)

    # -- talking ---------------------------------------------------------

    def say(self, **message: Any) -> None:
        """Send one answer."""
        with self._speaking:
            wire.write_all(2, encode(JSON, message))

    def run(self) -> None:
        """Introduce ourselves, then do commands until the other side is gone."""
        wire.write_all(2, MAGIC)
        self.say(hello=1, python="%d.%d.%d" % sys.version_info[:3], system=sys.platform)
        self._start_beating()
        self._synchronise()
        while True:
            kind, body = wire.read_frame(self._stdin)
            if kind != JSON:
                raise AgentError("AGENT_FAILED", "payload came where a command was due")
            command = wire.decode(body)
            operation: Callable[..., dict[str, Any]] = getattr(self, "do_" + command.pop("op"))
            try:
                self.say(done=operation(**command))
            except AgentError as error:
                self.say(error=[error.code, str(error)])
            except OSError as error:
                name = error.filename if isinstance(error.filename, str) else ""
                problem = explain(error, os.path.join(self._real, name))
                self.say(error=[problem.code, str(problem)])

    def _synchronise(self) -> None:
        """Drop what came before the token: a noisy shell at the sender's host may have spoken."""
        token, window = self._token.encode("ascii"), b""
        while window != token:
            window = (window + wire.read_exactly(self._stdin, 1))[-len(token) :]

    def _start_beating(self) -> None:
        def beat() -> None:
            while True:
                time.sleep(BEAT_SECONDS)
                try:
                    self.say(beat=1)
                except OSError:
                    os._exit(1)  # Nobody listens any more.

        threading.Thread(target=beat, daemon=True).start()

    def _progress(self, done: int, entries: int) -> None:
        now = time.monotonic()
        if now - self._last_report >= PROGRESS_SECONDS:
            self._last_report = now
            self.say(progress=[done, entries])

    # -- commands --------------------------------------------------------

    def do_look(self, root: str, path: str) -> dict[str, Any]:
        """Say what is at a place, without changing anything."""
        real = resolve(root, path)
        try:
            found = os.stat(real)
        except FileNotFoundError:
            found = None
        folder = real
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        space = os.statvfs(folder)
        return {
            "real": real,
            "has_root": os.path.isdir(root),
            "below_root": real[len(os.path.realpath(root)) :].strip("/"),
            "kind": _kind(found),
            "mode": stat.S_IMODE(found.st_mode) if found else 0,
            "mtime_ns": found.st_mtime_ns if found else 0,
            "writable": os.access(folder, os.W_OK | os.X_OK),
            "free": space.f_bavail * space.f_frsize,
            "size": space.f_blocks * space.f_frsize,
            "free_inodes": space.f_favail if space.f_files else -1,
            "name_max": space.f_namemax,
            "case_folding": _case_folding(folder),
            "host": os.uname().nodename,
            "machine": _machine(),
            "chain": _chain(real),
        }

    def do_open(self, root: str, path: str, make: bool = False) -> dict[str, Any]:
        """Use a folder as the tree of the commands that follow."""
        self._real = resolve(root, path)
        fd, made = open_real(self._real, make)
        if self._tree:
            self._tree.close()
        self._tree = Tree(fd)
        return {"made": made}

    def do_scan(self, include: list[str], exclude: list[str]) -> dict[str, Any]:
        """List the tree in batches: `entries` and `failures` come before the answer."""
        batch: list[Entry] = []
        failures: list[tuple[str, str, str]] = []

        def found(entry: Entry) -> None:
            batch.append(entry)
            if len(batch) == BATCH:
                self.say(entries=batch)
                batch.clear()

        def failed(path: str, code: str, message: str) -> None:
            failures.append((path, code, message))

        scan(self._opened(), Filter(include, exclude), found, failed)
        self.say(entries=batch)
        return {"failures": failures}

    def do_stat(self, path: str) -> dict[str, Any]:
        """The entry of one name in the tree."""
        folder, name = self._opened().parent(path)
        return {"entry": entry_of(folder, name, path)}

    def do_compare(self, entries: list[list[Any]], keep_both: bool) -> dict[str, Any]:
        """What the tree holds where the entries would go; see `publish.compare`."""
        states, others = publish.compare(self._opened(), _entries(entries), keep_both)
        return {"states": states, "others": others}

    def do_stage(
        self, transfer_id: str, attempt: int, made: list[str], attach: bool = False
    ) -> dict[str, Any]:
        """Prepare the staging folder, or join an attempt that has prepared it.

        `fresh` says that the tree's own folder was made for this transfer.
        """
        self._staging = Staging(self._opened().fd, transfer_id, attempt)
        if attach:
            self._staging.attach()
        else:
            made = self._staging.prepare(made)
        return {"fresh": self._real in made}

    def do_send(self, kind: str, entries: list[list[Any]], drill: str) -> dict[str, Any]:
        """Send a parcel to stdout; answer with its digests."""
        sender = Sender(self._opened(), self._outlet, drill)
        sender.send(kind, _entries(entries))
        return {"digests": sender.digests, "errors": sender.errors}

    def do_receive(self, kind: str, entries: list[list[Any]], readback: bool) -> dict[str, Any]:
        """Receive a parcel into the staging folder; answer with the digests of what was written."""
        staging = self._staged()
        receiver = Receiver(staging, self._progress)
        expected = _entries(entries)
        try:
            receiver.receive(self._stdin, kind, expected)
        except (AgentError, OSError) as error:
            # What is left of the payload cannot be told from commands: this agent is done.
            problem = error if isinstance(error, AgentError) else explain(error, self._real)
            self.say(error=[problem.code, str(problem)])
            raise EndOfStream from error
        if readback:
            make_durable(staging.fd)
            receiver.read_back(expected)
        return {"digests": receiver.digests, "errors": receiver.errors}

    def do_discard(self, entries: list[list[Any]]) -> dict[str, Any]:
        """Take entries out of the staging folder again."""
        for entry in _entries(entries):
            discard(self._staged(), entry)
        return {}

    def do_publish(self, policy: str, files: int) -> dict[str, Any]:
        """Make the staged tree durable and move it into place, if it holds all that was proven."""
        staging = self._staged()
        make_durable(staging.fd)
        if not self._staging:
            raise AgentError("AGENT_FAILED", "nothing is staged")
        with self._staging.publishing():
            publish.Publisher(staging, self._opened(), policy).publish(files)
        return {}

    def do_finish(self, entries: list[list[Any]]) -> dict[str, Any]:
        """Give published folders their mode and time."""
        return {"problems": publish.finish_folders(self._opened(), _entries(entries))}

    def do_finish_root(self, mode: int, mtime_ns: int) -> dict[str, Any]:
        """Give the tree's own folder its mode and time."""
        fd = self._opened().fd
        os.fchmod(fd, mode & 0o777)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
        return {}

    def do_sync(self) -> dict[str, Any]:
        """Make everything in the tree durable, names included."""
        make_durable(self._opened().fd)
        return {}

    def do_hash(self, entries: list[list[Any]]) -> dict[str, Any]:
        """The digests and ids of entries of the tree; an empty one where it cannot be read.

        An id is the device and inode of an entry that has no other name.
        """
        tree = self._opened()
        digests: list[str] = []
        ids: list[list[int]] = []
        for entry in _entries(entries):
            try:
                folder, name = tree.parent(entry.path)
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                ids.append([found.st_dev, found.st_ino] if found.st_nlink == 1 else [])
                digests.append(digest_file(tree, entry, self._progress, medium=True))
            except OSError:
                # No digest is no proof: the caller treats it as different.
                digests.append("")
                ids += [[]] * (len(digests) - len(ids))
        return {"digests": digests, "ids": ids}

    def do_remove(self, entries: list[list[Any]]) -> dict[str, Any]:
        """Remove entries of the tree that have not changed."""
        removed, kept = publish.remove_entries(self._opened(), _entries(entries))
        return {"removed": removed, "kept": kept}

    def do_remove_folders(self, entries: list[list[Any]]) -> dict[str, Any]:
        """Remove folders of the tree that are empty."""
        return {"problems": publish.remove_folders(self._opened(), _entries(entries))}

    def do_clean(self, transfer_id: str, attempt: int, undo: bool) -> dict[str, Any]:
        """Remove the staging folder; with `undo` also the folders made for it, if empty."""
        staging = self._staging or Staging(self._opened().fd, transfer_id, attempt)
        made = staging.remove()
        self._staging = None
        for folder in reversed(made if undo else []):
            try:
                os.rmdir(folder)
            except OSError:
                break  # Something is in it: it is not ours to remove any more.
        return {}

    # -- helpers ---------------------------------------------------------

    def _opened(self) -> Tree:
        if self._tree is None:
            raise AgentError("AGENT_FAILED", "no folder is open")
        return self._tree

    def _staged(self) -> Tree:
        if self._staging is None or self._staging.tree is None:
            raise AgentError("AGENT_FAILED", "nothing is staged")
        return self._staging.tree


def _entries(rows: list[list[Any]]) -> list[Entry]:
    return [Entry(*row) for row in rows]


def _kind(found: os.stat_result | None) -> str:
    if found is None:
        return "absent"
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    return "file" if stat.S_ISREG(found.st_mode) else "other"


def _case_folding(folder: str) -> bool | None:
    """Whether names differ only by case are one there; None where the name has no letters."""
    above, name = os.path.split(folder)
    if name == name.swapcase():
        return None
    try:
        return os.path.samefile(folder, os.path.join(above, name.swapcase()))
    except OSError:
        return False


def _machine() -> str:
    """The same text on the same running machine only, as far as the platform tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as source:
            return source.read().strip()
    except OSError:
        return f"{os.uname().nodename} {os.uname().version}"


def _chain(real: str) -> list[list[int]]:
    """Device and inode of the place and of each folder above it, innermost first."""
    chain = []
    while True:
        try:
            found = os.stat(real)
            chain.append([found.st_dev, found.st_ino])
        except FileNotFoundError:
            chain.append([0, 0])
        if real == "/":
            return chain
        real = os.path.dirname(real)


def main(token: str) -> None:
    """Run as the agent of this process until its input ends."""
    os.umask(0o022)
    agent = Agent(io.BufferedReader(io.FileIO(0, closefd=False), 1 << 16), token)
    try:
        agent.run()
    except (EndOfStream, BrokenPipeError):
        return
    except Exception:  # noqa: BLE001 - the last line of defence: the worker must learn of our bug
        import traceback  # Not at the top: it costs every start some milliseconds.

        agent.say(error=["AGENT_FAILED", traceback.format_exc(limit=-6)])
