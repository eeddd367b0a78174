"""Brings Ketter up, runs a real transfer through its API, and checks the result itself.

Started by demo.sh. It speaks to Ketter through the API alone, with the standard
library, so it is also an example of a client.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from django.core.exceptions import ImproperlyConfigured  # noqa: E402

from ketter_site.env import VAR_DIR, make_var_dir  # noqa: E402
from ketter_site.only_one import only_one  # noqa: E402
from ketter_site.processes import StartFailed, with_parent  # noqa: E402
from ketter_site.servers import database_config  # noqa: E402

DEMO_DIR = VAR_DIR / "demo"
LAB, SRVTRF = DEMO_DIR / "lab", DEMO_DIR / "srvtrf"
LOG_DIR = VAR_DIR / "log"
PORTALS = {"demo-lab": LAB, "demo-srvtrf": SRVTRF}
BLOCK = 1024 * 1024
DAY = 86400
#: How long a job may wait for a worker before a line says so.
QUIET_SECONDS = 15


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


def main() -> int:
    """Run the demo; the status is 0 only if the job is DONE and the trees are equal."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    up = None
    try:
        make_var_dir()
        database_config()  # Refuses the wrong database before anything is built.
        with only_one(lambda line: print(line, flush=True)):
            make_source(options.files, options.large_mib)
        up, url = start_ketter()
        run_transfer(Api(url, make_token()), up)
        print(f"\nThe admin is at {url}/admin/", flush=True)
        if not options.exit:
            stay_up(up)
    except (DemoFailed, ImproperlyConfigured, StartFailed, OSError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if up is not None:
            stop_ketter(up)
    return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as with Ctrl-C, also where a shell has told its background jobs to ignore that."""
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.sh", description="Ketter, with a real transfer.")
    parser.add_argument("--exit", action="store_true", help="end everything after the transfer")
    parser.add_argument("--files", type=int, default=2400, help="how many small files")
    parser.add_argument("--large-mib", type=int, default=256, help="size of the one large file")
    return parser.parse_args()


def make_source(files: int, large_mib: int) -> None:
    """Build the folder to send, unless an earlier demo did, and empty the other one."""
    shutil.rmtree(SRVTRF, ignore_errors=True)
    SRVTRF.mkdir(parents=True)
    wanted = f"{files} small files, {large_mib} MiB"
    mark = DEMO_DIR / "lab.made"
    if mark.exists() and mark.read_text("utf-8") == wanted:
        return
    mark.unlink(missing_ok=True)
    shutil.rmtree(LAB, ignore_errors=True)
    needed = files * 20_000 + 2 * large_mib * BLOCK
    if shutil.disk_usage(DEMO_DIR).free < 2 * needed:
        raise DemoFailed(f"{DEMO_DIR} has too little room: {size(2 * needed)} are needed.")
    print(f"building {LAB}: {wanted}", flush=True)
    _make_small_files(files)
    with (LAB / "camera A" / "clip.mov").open("wb") as large:
        for _ in range(large_mib):
            large.write(os.urandom(BLOCK))
    mark.write_text(wanted, "utf-8")


def _make_small_files(count: int) -> None:
    """Files as they come from a shoot: many, small, some hidden, in many folders."""
    chance = random.Random(1895)  # noqa: S311  (the same files on every machine)
    for name in ("camera A", "sound/day 1", "empty folder", ".hidden"):
        (LAB / name).mkdir(parents=True)
    for number in range(count):
        folder = LAB / f"frames/roll {number % 12:02}/{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{'.' if number % 50 == 0 else ''}frame-{number:05}.dpx"
        path.write_bytes(chance.randbytes(chance.randrange(200, 24_000)))
        path.chmod(0o640 if number % 7 else 0o444)
        taken = 1_600_000_000 + chance.randrange(DAY * 365)
        os.utime(path, ns=(taken * 10**9 + number, taken * 10**9 + number))


def start_ketter() -> tuple[subprocess.Popen[bytes], str]:
    """Start `manage.py up` and return once it answers, with its address."""
    ready_file = DEMO_DIR / "ready.json"
    ready_file.unlink(missing_ok=True)
    argv = [sys.executable, "manage.py", "up", "--ready-file", str(ready_file)]
    up = subprocess.Popen(
        [*with_parent(signal.SIGTERM), *argv],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not ready_file.exists():
            if up.poll() is not None:
                raise DemoFailed("Ketter did not start; the lines above say why.")
            time.sleep(0.1)
    except BaseException:
        stop_ketter(up)
        raise
    return up, json.loads(ready_file.read_text("utf-8"))["url"]


def stay_up(up: subprocess.Popen[bytes]) -> None:
    """Let Ketter run until Ctrl-C, which is the way to end it."""
    print("Ctrl-C ends Ketter.", flush=True)
    try:
        up.wait()
    except KeyboardInterrupt:
        return
    raise DemoFailed("Ketter ended by itself; the lines above say why.")


def stop_ketter(up: subprocess.Popen[bytes]) -> None:
    """Have Ketter end all of its processes, and wait for that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if up.poll() is None:
        up.terminate()
    up.wait()


def make_token() -> str:
    """A token of the admin for this demo, valid for a day."""
    argv = [sys.executable, "manage.py", "create_token", "admin", "--expires", "1"]
    made = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise DemoFailed(f"no token: {made.stderr.strip()}")
    return made.stdout.strip()


class Api:
    """Ketter's API, as any program may use it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        # A proxy of the environment has no business between us.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return the answer; an error becomes its sentence."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            method=method,
            data=None if data is None else json.dumps(data).encode(),
            headers={"Authorization": f"Token {self.token}", "Content-Type": "application/json"},
        )
        try:
            with self.opener.open(request, timeout=30) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise DemoFailed(f"{method} /api/{path}: {error.read().decode()}") from error
        except (OSError, HTTPException) as error:
            raise DemoFailed(
                f"Ketter does not answer at {self.url} any more ({error}): see {LOG_DIR}."
            ) from error

    def ensure_portal(self, name: str, root: Path) -> None:
        """Have a portal of that name with that root."""
        found = self.call("GET", f"portals/?name={name}")["results"]
        portal = {"name": name, "kind": "local", "root_path": str(root)}
        if not found:
            self.call("POST", "portals/", portal)
        elif found[0]["root_path"] != str(root):
            self.call("PATCH", f"portals/{found[0]['id']}/", {"root_path": str(root)})


def run_transfer(api: Api, up: subprocess.Popen[bytes]) -> None:
    """Launch the job, watch it to its end, and compare both trees."""
    for name, root in PORTALS.items():
        api.ensure_portal(name, root)
    for job in api.call("GET", "jobs/?source_portal=demo-lab")["results"]:
        # A demo that was interrupted: its job would go on beside this one.
        if job["is_live"]:
            cancel(api, job["id"])
    folder = time.strftime("delivery-%Y%m%d-%H%M%S")
    order = {"source_portal": "demo-lab", "target_portal": "demo-srvtrf", "verify": "readback"}
    job = api.call("POST", "jobs/", {**order, "target_path": folder})
    print(f"job {job['id']}: demo-lab -> demo-srvtrf/{folder}", flush=True)
    job = watch(api, job, up)
    if job["status"] != "done":
        raise DemoFailed(f"{job['status'].upper()} {job['error_code']}: {job['error_message']}")
    compared = compare(LAB, SRVTRF / folder)
    print(f"compared {compared} entries of both trees, byte for byte: equal")
    print(
        f"DONE  {job['files_done']} files, {size(job['bytes_done'])}, "
        f"{size(job['rate'])}/s, verified: {job['verify']}",
        flush=True,
    )


def cancel(api: Api, job: str) -> None:
    """Cancel a job, unless it ends just now by itself."""
    try:
        api.call("POST", f"jobs/{job}/cancel/")
    except DemoFailed:
        if api.call("GET", f"jobs/{job}/")["is_live"]:
            raise


def watch(api: Api, job: dict[str, Any], up: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Show the job's progress until it has ended."""
    live = sys.stdout.isatty()
    last = ""
    say_at = time.monotonic() + QUIET_SECONDS
    while True:
        if up.poll() is not None:
            raise DemoFailed("Ketter ended by itself; the lines above say why.")
        job = api.call("GET", f"jobs/{job['id']}/")
        line = progress_line(job)
        if live:
            print(f"\r{line}\x1b[K", end="", flush=True)
        elif line != last:
            print(line, flush=True)
        last = line
        if job["status"] == "queued" and time.monotonic() > say_at:
            print(f"no worker has taken the job yet: see {LOG_DIR / 'worker-1.log'}", flush=True)
            say_at = time.monotonic() + QUIET_SECONDS
        # Nobody is here to act, and with both portals on this machine no waiting would help.
        stuck = job["status"] in ("retry_wait", "needs_attention", "paused")
        if stuck or not job["is_live"]:
            if live:
                print()
            return job
        time.sleep(0.25)


def progress_line(job: dict[str, Any]) -> str:
    """One line: state, a bar, files, bytes and rate."""
    share = job["bytes_done"] / job["bytes_total"] if job["bytes_total"] else 0.0
    bar = ("#" * round(share * 20)).ljust(20, ".")
    phase = job["phase"] if job["is_live"] and job["phase"] else job["status"]
    return (
        f"{phase:<10} [{bar}] {job['files_done']}/{job['files_total']} files  "
        f"{size(job['bytes_done'])} of {size(job['bytes_total'])}  {size(job['rate'])}/s"
    )


def compare(source: Path, target: Path) -> int:
    """How many entries both trees hold; fails at the first that is not equal in both."""
    count = 0
    expected = {path.relative_to(source) for path in entries(source)}
    found = {path.relative_to(target) for path in entries(target)}
    if expected != found:
        odd = min(expected ^ found)
        raise DemoFailed(f"{odd} is only at the {'source' if odd in expected else 'target'}.")
    for path in sorted(expected):
        if describe(source / path) != describe(target / path):
            raise DemoFailed(f"{path} is not the same at the source and at the target.")
        count += 1
    return count


def entries(root: Path) -> Iterator[Path]:
    """Everything below a folder, hidden or not."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)


def describe(path: Path) -> tuple[object, ...]:
    """What must be equal about an entry."""
    status = path.lstat()
    mode = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode))
    if not stat.S_ISREG(status.st_mode):
        return mode
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return (*mode, status.st_size, status.st_mtime_ns, digest)


def size(count: float) -> str:
    """Bytes for a person to read."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


if __name__ == "__main__":
    sys.exit(main())
