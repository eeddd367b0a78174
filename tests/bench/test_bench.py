"""The benchmark itself: it measures what it says, and says when it could not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.cases import CASES, Goal
from tests.bench.check import difference
from tests.bench.lines import relay
from tests.bench.machine import PROJECT
from tests.bench.measure import Run
from tests.bench.run import State, timed
from tests.bench.summary import Summary

SMALL = CASES["small"]


def bench(tmp_path: Path, *arguments: str) -> tuple[dict, str]:
    """Run it as a developer does; what it wrote as JSON, and what it printed."""
    figures, drawing = tmp_path / "figures.json", tmp_path / "drawing.svg"
    line = [sys.executable, "-m", "tests.bench", *arguments, "--folder", str(tmp_path)]
    line += ["--rounds", "1", "--json", str(figures), "--plot", str(drawing)]
    ended = subprocess.run(
        line, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ET.fromstring(drawing.read_text("utf-8")).tag.endswith("svg")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"figures.json", "drawing.svg"}
    return json.loads(figures.read_text("utf-8")), ended.stdout


@pytest.mark.slow
def test_the_benchmark_measures_two_cases_at_a_tiny_scale(tmp_path):
    figures, printed = bench(tmp_path, "--cases", "small,local_small", "--scale", "0.002")
    assert figures["troubles"] == []
    assert figures["kind"] == "compare"
    assert {"cores", "cpu", "memory_bytes", "kernel", "python", "ssh", "file_system", "date"} <= (
        figures["machine"].keys()
    )
    assert [case["name"] for case in figures["cases"]] == ["small", "local_small"]
    for case in figures["cases"]:
        assert case["median_seconds"]["ketter"] > 0
        for peer, ratio in case["ratios"].items():
            assert (ratio is None) == (peer in figures["missing"]), peer
        for goal in case["goals"]:
            assert (goal["met"] is None) == (goal["ratio"] is None)
    assert {run["state"] for run in figures["runs"]} == {"done"}
    assert {(run["case"], run["tool"]) for run in figures["runs"]} >= {
        ("small", "ketter"),
        ("small", "tar"),
        ("local_small", "ketter"),
        ("local_small", "cp"),
    }
    for reason in figures["missing"].values():
        assert f"({reason})" in printed


@pytest.mark.slow
def test_the_growth_benchmark_measures_every_point_at_a_tiny_scale(tmp_path):
    # Enough files for every process to live through a few looks of the watch.
    figures, printed = bench(tmp_path, "growth", "--files", "4000,5000", "--sizes", "0.001")
    shown = [(point["series"], point["way"], point["files"]) for point in figures["points"]]
    assert shown == [
        ("files", "local", 4000),
        ("files", "ssh", 4000),
        ("files", "local", 5000),
        ("bytes", "local", 1),
    ]
    assert not any(point["trouble"] or point["skipped"] for point in figures["points"])
    assert "time per file is constant" in printed
    if sys.platform == "linux":
        peaks = figures["points"][1]["peaks"]
        assert peaks.keys() >= {"command line", "agent that reads", "agent that writes", "ssh"}
        assert min(peaks.values()) > 1_000_000


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets, once the whole of it has come."""

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def test_the_relay_of_the_benchmark_delays_all_bytes_and_changes_none(echo):
    sent = os.urandom(3_000_000)
    with relay(echo, 0.1) as port, socket.create_connection(("127.0.0.1", port)) as client:
        began = time.monotonic()
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        first = client.recv(1)
        took = time.monotonic() - began
        got = first + b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert got == sent
    assert 0.2 <= took < 0.4


def test_a_tool_that_takes_too_long_is_stopped_with_all_it_started():
    ended = timed(["sh", "-c", "sleep 77 | sleep 77"], limit=0.3)
    assert ended.state is State.STOPPED
    assert ended.seconds < 5


def test_a_failed_run_notes_the_status_and_the_error_output_of_its_tool():
    ended = timed(["sh", "-c", "echo no room >&2; exit 3"], limit=10)
    assert (ended.state, ended.note) == (State.FAILED, "status 3: no room")


def test_the_check_of_a_copy_finds_a_changed_byte_and_an_added_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"same")
    assert difference(tmp_path / "a", tmp_path / "b", content=True) == ""
    (tmp_path / "b" / "file").write_bytes(b"sAme")
    assert difference(tmp_path / "a", tmp_path / "b", content=False) == ""
    assert "another content" in difference(tmp_path / "a", tmp_path / "b", content=True)
    (tmp_path / "b" / "more").write_bytes(b"")
    assert "2 entries" in difference(tmp_path / "a", tmp_path / "b", content=False)


def test_the_summary_takes_ratios_within_a_round():
    times = {"ketter": [1.0, 10.0, 3.0], "tar": [2.0, 10.0, 4.0]}
    runs = [
        Run(number, "small", tool, State.DONE, seconds)
        for tool, each in times.items()
        for number, seconds in enumerate(each)
    ]
    verdict = Summary(runs, 60, {}).verdict(SMALL, Goal(0.75, ("tar",)))
    assert verdict.ratio
    assert (verdict.ratio.value, verdict.ratio.rounds, verdict.met) == (0.75, 3, True)


def test_the_ratio_to_a_peer_that_was_stopped_is_a_bound():
    runs = [Run(0, "small", "ketter", State.DONE, 6.0), Run(0, "small", "mscp", State.STOPPED, 60)]
    summary = Summary(runs, 60, {})
    assert summary.verdict(SMALL, Goal(0.25, ("mscp",))).met is True
    assert summary.verdict(SMALL, Goal(0.05, ("mscp",))).met is None
    assert summary.cell(SMALL, "mscp") == "> 60 s (< 0.10)"


def test_the_summary_names_a_missing_peer():
    runs = [Run(0, "small", "ketter", State.DONE, 6.0), Run(0, "small", "scp", State.DONE, 6.0)]
    summary = Summary(runs, 60, {"mscp": "not on PATH"})
    assert summary.cell(SMALL, "mscp") == "missing"
    assert summary.verdict(SMALL, Goal(0.25, ("mscp",))).note == "mscp is missing"
    of_two = summary.verdict(SMALL, Goal(1.05, ("scp", "mscp")))
    assert (of_two.met, of_two.note) == (True, "without mscp, which is missing")
