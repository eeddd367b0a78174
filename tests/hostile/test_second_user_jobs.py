"""Jobs of a whole Ketter, run by root or an ordinary user, while mallory does what she can."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile import acts
from tests.hostile.installation import Installation
from tests.hostile.scene import SECRET, Scene
from tests.hostile.shared_host import SYSTEM_PYTHON, USERS, Host, home
from tests.rig.lanes import nightly
from tests.rig.waiting import wait_until

#: One process of a run has the whole Ketter for all of them.
pytestmark = pytest.mark.xdist_group("hostile-jobs")

#: Seconds in which a job that met a planted folder has to be at rest, on a busy machine.
SOON = 45.0


@pytest.fixture(scope="module", params=["ketter", nightly("root")])
def ketter(shared_host: Host, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """A Ketter of the runner's, for all tests of this module."""
    with Installation(shared_host, request.param) as installation:
        yield installation


@pytest.fixture
def scene(ketter: Installation) -> Iterator[Scene]:
    """A scene of the user who runs Ketter, its target folder open to all (0777)."""
    scene = Scene(ketter.host, ketter.user, bits=0o777)
    yield scene
    scene.close()


def ends(ketter: Installation, scene: Scene) -> tuple[str, str]:
    """Portals of the scene's source and target."""
    mark = scene.path.rpartition("/")[2]
    return (
        ketter.portal(f"src-{mark}", scene.source),
        ketter.portal(f"pub-{mark}", scene.target),
    )


def staging_of(scene: Scene, job: str) -> str:
    """The staging folder of a job, once it is there."""
    begins = f".ketter-{job.replace('-', '')}"
    target = scene.host.there(scene.target)
    found: list[str] = []

    def look() -> bool:
        found[:] = [name for name in os.listdir(target) if name.startswith(begins)]
        return bool(found)

    wait_until(look, 30)
    return f"{scene.target}/{found[0]}"


def paused(ketter: Installation, scene: Scene, mode: str) -> tuple[str, str]:
    """A job that was paused half-way, and its staging folder."""
    source, target = ends(ketter, scene)
    job = ketter.launch(source, target, mode=mode, bandwidth_limit=1_000_000)
    folder = staging_of(scene, job)
    time.sleep(0.5)
    ketter.api("POST", f"jobs/{job}/pause/")
    assert ketter.wait(job)["status"] == "paused"
    return job, folder


# -- H6, H8: the staging folder between two attempts ---------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode"), [("fifos", "move"), nightly("links", "copy"), nightly("notes", "move")]
)
def test_a_paused_job_meets_what_mallory_put_in_its_folders_place_and_asks(
    ketter: Installation, scene: Scene, kind: str, mode: str
) -> None:
    job, folder = paused(ketter, scene, mode)
    scene.host.act("mallory", "import os, sys; os.rename(sys.argv[1], sys.argv[2])", folder,
                   f"{scene.target}/gone-away")  # fmt: skip
    scene.host.act("mallory", acts.PLANT, folder, "777", kind, scene.precious)

    ketter.api("POST", f"jobs/{job}/resume/")
    found = ketter.wait(job, seconds=SOON)

    assert (found["status"], found["error_code"]) == ("needs_attention", "STAGING_NOT_OURS")
    assert found["error_message"].isprintable()
    scene.assert_genuine(1, moved=False)
    scene.assert_untouched()
    ketter.api("POST", f"jobs/{job}/cancel/")
    assert ketter.wait(job, "cancelled", seconds=SOON)
    assert scene.host.there(folder).lstat().st_uid == USERS["mallory"]


# -- H14: the root of a portal ------------------------------------------------------------


@pytest.mark.parametrize("side", ["target", "source"])
def test_a_root_that_mallory_swaps_by_a_link_is_not_followed(
    ketter: Installation, scene: Scene, side: str
) -> None:
    """Her folder holds the portal's root. Followed, a move would take the runner's own files."""
    host = scene.host
    root = f"{scene.target}/hers"
    host.act("mallory", "import os, sys; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)", root)
    if side == "source":
        host.act("mallory", "import sys; open(sys.argv[1] + '/f', 'w').write('hers')", root)
    mark = f"{side}-{scene.path.rpartition('/')[2]}"
    hers = ketter.portal(f"hers-{mark}", root)
    own = ketter.portal(f"own-{mark}", scene.source)
    order = (own, hers) if side == "target" else (hers, own)
    assert ketter.wait(ketter.launch(*order, target_path="first"))["status"] == "done"
    host.act("mallory", """
import os, sys
os.rename(sys.argv[1], sys.argv[1] + "-away")
os.symlink(sys.argv[2], sys.argv[1])
""", root, scene.precious)  # fmt: skip

    found = ketter.wait(ketter.launch(*order, mode="move", target_path="second"), seconds=SOON)

    assert (found["status"], found["error_code"]) == ("needs_attention", "ROOT_MOVED")
    scene.assert_untouched()
    second = host.there(f"{scene.source}/second")
    assert not (second.exists() and any(SECRET in p.read_bytes() for p in files(second)))
    ketter.api("POST", f"jobs/{found['id']}/cancel/")


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


# -- what mallory reads (H1, H4, H11) -----------------------------------------------------------


def keys_of_the_wire(seen: bytes) -> list[str]:
    """Keys of agents in what was read: a command line has the digest of each, by which to know."""
    texts = [seen]
    texts += [
        bytes.fromhex(found.decode()) for found in re.findall(rb"(?:[0-9a-f]{2}){200,}", seen)
    ]
    text = b"\n".join(texts)
    known = {found.decode() for found in re.findall(rb'hexdigest\(\) != "([0-9a-f]{64})"', text)}
    assert known, "no agent's command line was read: this shows nothing"
    candidates: set[bytes] = set()
    for found in set(re.findall(rb"[0-9a-f]{32,}", text)):
        if len(found) <= 4096:
            candidates |= {found[at : at + 32] for at in range(len(found) - 31)}
    keys = [bytes.fromhex(one.decode()) for one in candidates]
    return [key.hex() for key in keys if hashlib.blake2b(key, digest_size=32).hexdigest() in known]


def test_mallory_reads_no_key_password_or_token_while_jobs_run(
    ketter: Installation, scene: Scene
) -> None:
    """Of every process: command line, environment, open files; and all in /tmp, /dev/shm, /run."""
    host = scene.host
    mark = scene.path.rpartition("/")[2]
    by_password, by_key = ketter.credentials(mark)
    own, _ = ends(ketter, scene)
    host.there(f"{home('mallory')}/seen").unlink(missing_ok=True)
    to_bob = ketter.far_portal(f"bob-{mark}", "bob", "/home/bob", by_password)
    to_mallory = ketter.far_portal(f"mallory-{mark}", "mallory", home("mallory"), by_key)
    reader = [SYSTEM_PYTHON, "-c", acts.READ_ALL, f"{home('mallory')}/seen"]
    with host.start("mallory", reader, cwd="/") as thief:
        wait_until(lambda: thief.said().count("looked") >= 1)
        jobs = [
            ketter.launch(own, to, target_path=f"in-{mark}", bandwidth_limit=4_000_000)
            for to in (to_bob, to_mallory)
        ]
        states = [ketter.wait(job)["status"] for job in jobs]
        ketter.manage("create_token", "admin")
        assert thief.runs, thief.said()

    assert states == ["done", "done"]
    seen = host.there(f"{home('mallory')}/seen").read_bytes()
    assert b"rqworker" in seen, "no process of Ketter's was seen: this shows nothing"
    found = [secret[:4] for secret in ketter.secrets() if secret.encode() in seen]
    assert found == []
    assert keys_of_the_wire(seen) == []
    assert not re.findall(rb"KETTER_(?:SECRET|FIELD)_KEYS?=", seen)


@pytest.mark.parametrize("user", ["mallory", "postgres", "nobody"])
def test_logs_keys_and_sockets_are_closed_to_every_other_user(
    ketter: Installation, user: str
) -> None:
    """H4, H11; the user that Postgres runs as, where root starts it, too."""
    uid = USERS.get(user) or number_of(user)
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    status, said = ketter.host.run("root", [*become, SYSTEM_PYTHON, "-c", """
import glob, os, socket, sys
var, read, reached = sys.argv[1], [], []
for folder in [var, *glob.glob("/tmp/ketter-*")]:
    for above, folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            try:
                with socket.socket(socket.AF_UNIX) as line:
                    line.connect(path)
                    reached.append(path)
            except OSError:
                pass
            if "/postgres/" in path:
                continue
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                read.append(path)
            except OSError:
                pass
for name in ("web.log", "worker-1.log", "postgres.log", "valkey.log"):
    if os.access(var + "/log/" + name, os.R_OK):
        read.append(name)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open("/proc/%s/environ" % pid, "rb") as file:
            text = file.read()
    except OSError:
        continue
    if b"KETTER_" in text or b"DATABASE_URL" in text or b"REDIS_URL" in text:
        read.append("environ of " + pid)
print(read, reached)
""", ketter.var])  # fmt: skip
    assert status == 0, said
    assert said.strip() == "[] []"


def number_of(user: str) -> int:
    """The number of one of the machine's own users."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        pytest.skip(f"this machine has no user {user}")


def test_all_that_ketter_wrote_is_closed_to_other_users(ketter: Installation) -> None:
    for path in (ketter.logs, *ketter.logs.iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    secrets = ketter.host.there(f"{ketter.var}/secrets.env")
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert len(list(ketter.logs.iterdir())) >= 4


def test_a_moved_portal_does_not_show_its_new_password_to_the_old_account(
    ketter: Installation, scene: Scene
) -> None:
    """W18: a paused job goes on after its portal was given another host and credential."""
    mark = scene.path.rpartition("/")[2]
    by_password, _ = ketter.credentials(mark)
    own, _ = ends(ketter, scene)
    name = ketter.far_portal(f"nas-{mark}", "bob", "/home/bob", by_password)
    job = ketter.launch(own, name, target_path=f"w18-{mark}", bandwidth_limit=1_000_000)
    bob = scene.host.there(f"/home/bob/w18-{mark}")
    wait_until(lambda: bob.exists() and any(bob.iterdir()), 30)
    ketter.api("POST", f"jobs/{job}/pause/")
    assert ketter.wait(job)["status"] == "paused"
    new = {"name": f"new-{mark}", "kind": "password", "secret": "of the new host"}
    ketter.api("POST", "credentials/", new)
    moved = {"host": "localhost", "credential": new["name"], "host_key": scene.host.host_key}
    ketter.api("PATCH", f"portals/{ketter.portal_id(name)}/", moved)
    log = scene.host.there("/etc/ssh/sshd.log")
    before = log.read_text().count("Failed password")

    ketter.api("POST", f"jobs/{job}/resume/")
    found = ketter.wait(job, seconds=SOON)

    assert found["status"] == "needs_attention", found
    assert log.read_text().count("Failed password") == before, "the new password was sent there"
    ketter.api("POST", f"jobs/{job}/cancel/")


# -- what mallory's account says of itself (H2, H21) ----------------------------------------------

_ESCAPES = r"""\x1b]0;PWNED\x07\x1b[2J\r\nDONE: all good\u202e"""
#: Her account fails the scan with such a text, or says odd things of itself.
LIES = {
    "error": 'body = {"error": ["NO_SPACE", "ESCAPES" + "x" * 1000000]}',
    "host": 'body["done"]["host"] = "a\\0bESCAPES"',
    "surrogate": 'body["done"]["host"] = "\\ud800x"',
    "long": 'body["done"]["host"] = "A" * 3000000',
    "real": 'body["done"]["real"] = "/ESCAPES"',
}
_SAY = """
from engine.agent.context import Context
_say = Context.send
def say(self, body, blob=b""):
    if body.get("op") == "inspect":
        CHANGE
    _say(self, body, blob)
Context.send = say
"""


@pytest.mark.parametrize("what", ["error", "host", *map(nightly, ("surrogate", "long", "real"))])
def test_odd_words_of_an_account_are_short_and_printable_in_jobs_and_connection_tests(
    ketter: Installation, scene: Scene, lie: Callable[[str], None], what: str
) -> None:
    mark = scene.path.rpartition("/")[2]
    _, by_key = ketter.credentials(mark)
    own, _ = ends(ketter, scene)
    name = ketter.far_portal(f"odd-{mark}", "mallory", home("mallory"), by_key)
    lie(_SAY.replace("CHANGE", LIES[what].replace("ESCAPES", _ESCAPES)))

    finding = ketter.api("POST", f"portals/{ketter.portal_id(name)}/test/")
    found = ketter.wait(ketter.launch(name, own, max_tries=1), seconds=SOON)

    for text in (finding["message"], finding["portal"]["health_message"], found["error_message"]):
        assert len(text) < 2000
        assert text.isprintable(), text
    capabilities = finding["portal"]["capabilities"]
    assert len(str(capabilities)) < 5000
    # Each by itself: how Python shows a dictionary escapes what is in it.
    assert all(value.isprintable() for value in capabilities.values() if isinstance(value, str))
    scene.assert_genuine(1, moved=False)
    if found["status"] not in ("failed", "done", "partial"):
        ketter.api("POST", f"jobs/{found['id']}/cancel/")
