"""Why an OpenSSH client ended, or brought no agent: what its log and the far host's words mean.

Nothing here is tried again unless time may mend it: what a person has to do is in the sentence.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from engine import errors
from engine.agent.wire import MAGIC
from engine.connect import ssh_options
from engine.connect.bundle import DAMAGED, SHELL_READS_INPUT, TOO_OLD
from engine.connect.child import CHECK_SECONDS
from engine.connect.ssh_files import LOG_BYTES
from engine.protocol.fields import sentence

if TYPE_CHECKING:
    from engine.connect.ssh import SshClient

#: Pattern in ssh's log -> error, and what it says of the host; the first match decides.
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
        "Connection closed|Connection reset|Broken pipe|not responding|Disconnected|by remote host",
        errors.ConnectionLost,
        "closed the connection",
    ),
)
#: In ssh's log: the login has succeeded; the far host runs no command; a program between, whose own
#: words are not in this log, has not brought the connection about.
_LET_IN, _NO_COMMAND, _BEHIND = "Authenticated to ", "request failed on channel", "port 65535"
#: Pattern in a jump host's words about a connection that it should pass on, likewise.
_PASSING_ON: tuple[tuple[str, type[errors.EngineError], str], ...] = (
    (
        "administratively prohibited|forwarding .*refused|not permitted",
        errors.AuthFailed,
        "forbids connections to other hosts; allow this one there (AllowTcpForwarding, PermitOpen)",
    ),
    ("open failed", errors.HostUnreachable, "does not reach the host behind it"),
)
#: Pattern in what the far shell said -> error, and what it says of the host; the first decides.
_FAR_MEANINGS: tuple[tuple[str, type[errors.EngineError], str], ...] = (
    (TOO_OLD, errors.NoPython, "has a Python older than 3.8, too old for the agent"),
    (
        "MemoryError|annot allocate memory|ailed to map segment|ut of memory|Not enough memory",
        errors.HostTrouble,
        "has too little memory for this account",
    ),
    (
        "new thread|fork: |an'?t fork|annot fork|nable to fork|esource temporarily unavailable",
        errors.HostTrouble,
        "lets this account start no more processes",
    ),
    (
        "assword has expired|assword change required|ccount has expired|hange your password immed",
        errors.ShellFailed,
        "wants a new password first: this one has expired; log in there by hand and change it",
    ),
    (
        ": restricted",
        errors.ShellFailed,
        "gives this account a restricted shell; give it a shell that runs programs",
    ),
    (
        "sftp connections only|sftp only",
        errors.ShellFailed,
        "allows this account SFTP only; it must be allowed to run programs",
    ),
    (
        "python3.*(not found|nknown command|o such file)|not found.*python3|pyenv:|xcode-select",
        errors.NoPython,
        "has no python3 that could run the agent",
    ),
    (
        DAMAGED,
        errors.ShellFailed,
        "has a profile that reads what is for our program; let it read only what a person types",
    ),
)
#: What an agent says first; what a shell adds to the number of the signal that ended a program,
#: and the signals that come from other people and programs, not from what the program itself did.
_GREETING, _SIGNALLED = MAGIC.decode("ascii").strip("\n"), 128
_SENT_BY_OTHERS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
#: What the far shell is asked to say, to show that it runs commands; an SFTP server's greeting (in
#: reply to ours), and the seconds for both.
_WORD, _ASK_SECONDS = "KETTER-SHELL", 8.0
#: Bytes, or characters, of a host's words in which a reason is looked for: patterns take long in
#: more.
_ENOUGH = 8 << 10
_SFTP_HELLO, _SFTP_ANSWER = b"\0\0\0\5\1\0\0\0\3", b"\2\0\0\0\3"


class SshEnding:
    """Finds out why a client ended, from its log and its host's words; asks the host if need be."""

    def __init__(self, client: SshClient) -> None:
        self._client, self._access, self._files = client, client.access, client.files

    def of_start(self, status: int | None, text: str) -> errors.EngineError:
        """Return why no agent has started, from ssh's log and the far host's output `text`."""
        log = text_of(self._files.log)
        broke = self._client.is_shared or re.search(_MEANINGS[-1][0], log)
        # Else 255 is the far command's own status, or a signal ended that.
        if status == 255 and (_LET_IN not in log or broke) and _NO_COMMAND not in log:
            return self.of_connection(text)
        if status is None:
            return self.of_connection(text)
        return self._of_shell(status, text)

    def of_connection(self, text: str) -> errors.EngineError:
        """Return why there is no connection, or no longer; `text` is what came beside ssh's log."""
        host, log = self._access.host, text_of(self._files.log)
        if _BEHIND in log and not self._is_let_in(log) and (error := self._of_jump(text)):
            return error
        for pattern, kind, meaning in _MEANINGS:
            if re.search(pattern, log):
                if kind is errors.HostKeyUnknown and self._access.host_key:
                    kind, meaning = _MEANINGS[0][1:]
                if kind is errors.AuthFailed:
                    meaning += self._of_keys(log)
                return kind(f"{host} {meaning}")
        return errors.ConnectionLost(f"{host}: {_shown(log or text) or 'the connection broke'}")

    def of_silence(self, seconds: float, text: str) -> errors.EngineError:
        """Return why no agent has introduced itself in that time; ssh still runs."""
        host = self._access.host
        if not self._is_let_in(text_of(self._files.log)):
            return errors.HostUnreachable(f"{host} did not answer in {seconds:.0f} s")
        return self._by_words(text) or errors.ShellFailed(
            f"{host} lets this account in, but its login shell did not start our program in "
            f"{seconds:.0f} s; let its profile start no other shell, read no input and wait for "
            f"nothing where nobody types{_said(text)}"
        )

    def _is_let_in(self, log: str) -> bool:
        return self._client.is_shared or _LET_IN in log

    def _by_words(self, text: str) -> errors.EngineError | None:
        for pattern, kind, meaning in _FAR_MEANINGS:
            if re.search(pattern, text):
                return kind(f"{self._access.host} {meaning}{_said(text)}")
        return None

    def _of_shell(self, status: int, text: str) -> errors.EngineError:
        """Return why the far command ended by itself: by what it said, else by asking once more."""
        host = self._access.host
        if status == SHELL_READS_INPUT:
            return errors.ShellFailed(
                f"{host} has a profile that starts another shell, which reads what is for our "
                "program; let it do so only where somebody types"
            )
        if error := self._by_words(text):
            return error
        if _GREETING in text:
            return errors.ConnectionLost(f"the agent at {host} ended (status {status})")
        if status - _SIGNALLED in _SENT_BY_OTHERS:
            return errors.ConnectionLost(
                f"{host} ended our program as it started, by signal {status - _SIGNALLED}"
            )
        if status in (126, 127):
            return errors.NoPython(f"{host} has no python3 that could run the agent{_said(text)}")
        said = self._ask("echo " + _WORD.replace("-", "''-"))[-_ENOUGH:].decode("utf-8", "replace")
        if _WORD in said and status == 255:  # So says ssh where a signal ended the command.
            return errors.ConnectionLost(
                f"{host} ended our program as it started, by a signal{_said(text)}"
            )
        if _WORD in said:
            return errors.NoPython(
                f"{host} has a python3 that does not run our program; make one of version 3.8 or "
                f"newer the first in PATH{_said(text)}"
            )
        text = said.strip() or text
        if error := self._by_words(text):
            return error
        sftp = _SFTP_ANSWER in self._ask("sftp", "-s")
        return errors.ShellFailed(
            f"{host} lets this account in, but its login shell runs no command"
            f"{', only an SFTP server answers' if sftp else ''}; give it a shell that runs "
            f"programs{_said(text)}"
        )

    def _ask(self, remote: str, *options: str) -> bytes:
        """Return what another login says: to a command, or as a subsystem with the option -s."""
        if self._client.is_shared:
            return b""
        line = self._client.command(remote)
        line[line.index("ssh") + 1 :] = [*options, *line[line.index("ssh") + 1 :]]
        if options:
            return self._try(line, _SFTP_HELLO, _SFTP_ANSWER)
        return self._try(line, b"", _WORD.encode())

    def _of_jump(self, text: str) -> errors.EngineError | None:
        """Return the jump host's own refusal: it is in the words of another ssh, or asked for."""
        config = self._configuration()
        *before, jump = config.get("proxyjump", [""])[0].split(",")
        if not any(re.search(pattern, text) for pattern, _, _ in (*_PASSING_ON, *_MEANINGS[:-1])):
            if not jump or jump == "none":
                return None
            text = self._ask_jump(before, jump, config)[-_ENOUGH:]
        for pattern, kind, meaning in (*_PASSING_ON, *_MEANINGS):
            if re.search(pattern, text):
                which = f"jump host {jump}" if jump else "ProxyCommand"
                return kind(f"the {which} on the way to {self._access.host} {meaning}{_said(text)}")
        return None

    def _ask_jump(self, before: list[str], jump: str, config: dict[str, list[str]]) -> str:
        """Return what ssh to a jump host says; the configuration may have silenced the first."""
        through = f"[{config['hostname'][0]}]:{config['port'][0]}"
        line = [*ssh_options.command(), *self._client.from_config(), "-o", "BatchMode=yes"]
        line += ["-o", "LogLevel=INFO", *(("-J", ",".join(before)) if before else ())]
        return self._try([*line, "-W", through, "--", jump]).decode("utf-8", "replace")

    def _try(self, line: list[str], *stdin_and_enough: bytes) -> bytes:
        try:
            return run_apart(self._client, line, _ASK_SECONDS, *stdin_and_enough)[1]
        except OSError:
            return b""

    def _of_keys(self, log: str) -> str:
        """Return what is wrong with the keys themselves; empty if nothing is found."""
        if re.search("UNPROTECTED PRIVATE KEY|bad permissions", log):
            return "; others may read the key's file, so ssh does not use it (chmod 600)"
        if self._access.password:
            return ""
        keys = [self._access.identity_file] if self._access.identity_file else []
        if self._access.private_key:
            keys = [os.path.join(self._files.folder, "key")]
        for key in keys or self._configuration().get("identityfile", []):
            path = os.path.expanduser(key)
            if "passphrase" in self._local("ssh-keygen", "-yP", "", "-f", path):
                return (
                    "; the key has a passphrase, which Ketter does not ask for: add the key to "
                    "ssh-agent, or use one without a passphrase"
                )
        return ""

    def _configuration(self) -> dict[str, list[str]]:
        """Return what ssh's configuration has for this host: the values of each option."""
        user = ["-l", self._access.username] if self._access.username else []
        port = ["-p", str(self._access.port)] if self._access.port else []
        asked = ["-G", *self._client.from_config(), *user, *port, "--", self._access.host]
        found: dict[str, list[str]] = {}
        for line in self._local("ssh", *asked).splitlines():
            name, _, value = line.partition(" ")
            found.setdefault(name, []).append(value)
        return found

    def _local(self, *line: str) -> str:
        """Return what a program of this machine says; empty if it cannot be asked."""
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_ASK_SECONDS,
                check=False,
                env=self._client.environment(),
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace")


def text_of(path: str) -> str:
    """Return the end of a text file; empty if there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _shown(text: str) -> str:
    """Return the end of a far host's text as one line: a terminal may show it."""
    return sentence(" ".join(text.split())[-300:])


def _said(text: str) -> str:
    return f" (it said: {_shown(text)[-200:]})" if text.strip() else ""


def run_apart(
    client: SshClient, line: list[str], seconds: float, stdin: bytes = b"", enough: bytes = b"\0\0"
) -> tuple[int | None, bytes]:
    """Run another ssh; return its exit status and the last of what it and the host said.

    The status is None if ssh has not ended in time, or if `enough` was said: a job of the far
    profile may keep ssh from its end. Of text without end no more than LOG_BYTES are kept.
    """
    until, said = time.monotonic() + seconds, b""
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=client.environment(),
    ) as process:
        assert process.stdin
        assert process.stdout
        client.started(process.pid)
        readable = select.poll()
        readable.register(process.stdout, select.POLLIN)
        try:
            if stdin:  # Its end would come before an answer, and could prevent that.
                os.write(process.stdin.fileno(), stdin)
            else:
                process.stdin.close()
            while time.monotonic() < until and enough not in said:
                client.files.trim_log()
                if not readable.poll(CHECK_SECONDS * 1000):
                    continue
                part = os.read(process.stdout.fileno(), LOG_BYTES)
                said = (said + part)[-LOG_BYTES:]
                if not part:
                    return process.wait(max(0.0, until - time.monotonic())), said
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass  # It has not ended, or took no input.
        finally:
            process.kill()  # It does nothing to a process that has been waited for.
    return None, said
