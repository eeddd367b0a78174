"""Ketter against tar over ssh, rsync and scp, on this machine, in one run.

    python -m tests.bench.compare [--rounds 3] [--json FILE]

Every round runs every tool once on the same data through the same sshd on
loopback; what counts is the median of the ratios Ketter / peer within a round,
since absolute times on a shared machine drift. Ketter verifies (level stream),
tar and scp do not, rsync compares digests of the stream.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.rig.sshd import Sshd
from tests.rig.trees import build_small, snapshot

PROJECT = Path(__file__).parents[2]
Tool = Callable[[Path, Path, Sshd], list[str]]


def ketter(source: Path, target: Path, server: Sshd) -> list[str]:
    """The engine's command line, verifying both ends."""
    line = [sys.executable, "-m", "engine.cli", "--from", str(source)]
    line += ["--to", f"ssh://{server.username}@{server.host}:{server.port}{target}"]
    line += ["--ssh-config", str(server.ssh_config), "--identity", str(server.identity_file)]
    return [*line, "--known-hosts", str(server.known_hosts)]


def tar(source: Path, target: Path, server: Sshd) -> list[str]:
    """tar at both ends of an ssh."""
    far = f"mkdir -p {target} && tar -C {target} -xf -"
    near = f"tar -C {source} -cf - . | {' '.join(_ssh(server))} {server.host} '{far}'"
    return ["sh", "-c", near]


def rsync(source: Path, target: Path, server: Sshd) -> list[str]:
    """rsync as most people call it."""
    shell = " ".join(_ssh(server))
    return ["rsync", "-a", "-e", shell, f"{source}/", f"{server.host}:{target}/"]


def scp(source: Path, target: Path, server: Sshd) -> list[str]:
    """scp, recursively."""
    return ["scp", "-qrp", *_ssh(server)[1:3], str(source), f"{server.host}:{target}"]


def _ssh(server: Sshd) -> list[str]:
    return ["ssh", "-F", str(server.ssh_config)]


TOOLS: dict[str, Tool] = {"ketter": ketter, "tar over ssh": tar, "rsync -a": rsync, "scp -r": scp}


def build_cases(root: Path, scale: float) -> dict[str, Path]:
    """The data, made once."""
    cases = {
        "10,000 files of 0 to 4 KiB": root / "small",
        "one file of 1 GiB": root / "large",
        "300 files of 1 to 8 MiB and 2,000 small": root / "session",
        "one file of 1 byte": root / "byte",
    }
    build_small(root / "small", int(10_000 * scale))
    for name in ("large", "byte"):
        (root / name).mkdir()
    (root / "byte" / "one").write_bytes(b"1")
    block = os.urandom(8 << 20)
    with open(root / "large" / "tape.mov", "wb") as file:
        file.writelines(block for _ in range(int(128 * scale)))
    build_small(root / "session", int(2_000 * scale))
    for number in range(int(300 * scale)):
        (root / "session" / f"take{number}").write_bytes(block[: (number % 8 + 1) << 20])
    return cases


def seconds(line: list[str]) -> float:
    """How long a command takes; it has to succeed."""
    began = time.monotonic()
    subprocess.run(line, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def measure(rounds: int, scale: float, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds by case and tool, one figure a round."""
    cases = build_cases(folder, scale)
    tools = {
        name: tool for name, tool in TOOLS.items() if name != "rsync -a" or shutil.which("rsync")
    }
    times: dict[str, dict[str, list[float]]] = {c: {t: [] for t in tools} for c in cases}
    with Sshd() as server:
        for _ in range(rounds):
            for case, source in cases.items():
                for name, tool in tools.items():
                    target = folder / "target"
                    times[case][name].append(seconds(tool(source, target, server)))
                    if len(snapshot(target)) != len(snapshot(source)):
                        raise SystemExit(f"{name} did not deliver {case}")
                    shutil.rmtree(target)
    return times


def table(times: dict[str, dict[str, list[float]]]) -> str:
    """A Markdown table of medians and of the ratio to Ketter."""
    peers = [name for name in next(iter(times.values())) if name != "ketter"]
    lines = [
        "| case | ketter, verified | " + " | ".join(peers) + " |",
        "| --- " * (len(peers) + 2) + "|",
    ]
    for case, by_tool in times.items():
        ours = by_tool["ketter"]
        cells = [f"{statistics.median(ours):.2f} s"]
        for peer in peers:
            ratio = statistics.median(a / b for a, b in zip(ours, by_tool[peer], strict=True))
            cells.append(f"{statistics.median(by_tool[peer]):.2f} s (ratio {ratio:.2f})")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is what the table names")
    parser.add_argument("--folder", default=None, help="where the data is made (default: temp)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ketter-bench-", dir=options.folder))
    try:
        times = measure(options.rounds, options.scale, folder)
    finally:
        shutil.rmtree(folder)
    print(table(times))
    if options.json:
        options.json.write_text(json.dumps(times, indent=1))


if __name__ == "__main__":
    main()
