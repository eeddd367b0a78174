"""mallory puts something where another user's transfer goes: it is refused, or does nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.hostile import acts
from tests.hostile.scene import Scene
from tests.hostile.shared_host import CHECKOUT, SYSTEM_PYTHON, USERS, Host, home, python
from tests.rig.lanes import nightly
from tests.rig.waiting import wait_until

#: Seconds in which a refusal has to come, on a busy machine.
SOON = 30.0
#: Codes with which a transfer refuses what lies in its way.
REFUSALS = ("STAGING_NOT_OURS: ", "TARGET_BUSY: ", "PATH_OUTSIDE_ROOT: ")


def refused(scene: Scene, *words: str) -> str:
    """Run the transfer, which must be refused soon; what it said."""
    began = time.monotonic()
    status, said = scene.cli(*words).finish(SOON)
    assert time.monotonic() - began < SOON
    assert status not in (0, 3), said
    scene.judge(status, said)
    return said


# -- the staging folder (H6, H7, H8) --------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bits", "words"),
    [
        ("fifos", "777", ["--resume", "--mode", "move"]),
        ("notes", "777", []),
        *(
            nightly(kind, bits, words)
            for kind in acts.PLANTS
            for bits in ("700", "777")
            for words in ([], ["--resume"], ["--mode", "move"], ["--resume", "--mode", "move"])
        ),
    ],
)
def test_a_staging_folder_that_mallory_planted_is_refused_and_stays(
    scene: Scene, kind: str, bits: str, words: list[str]
) -> None:
    folder = f"{scene.target}/{scene.staging_name()}"
    scene.host.act("mallory", acts.PLANT, folder, bits, kind, scene.precious)

    said = refused(scene, *words)

    assert said.startswith((*REFUSALS, "IO_ERROR: ")), said
    assert scene.staging().lstat().st_uid == USERS["mallory"]
    if not kind.startswith("is_"):
        assert f"belongs to user {USERS['mallory']}" in said


@pytest.mark.parametrize("words", [["--resume", "--mode", "move"], nightly(["--resume"])])
def test_a_forged_staging_folder_proves_nothing_and_no_source_is_removed(
    scene: Scene, words: list[str]
) -> None:
    """mallory has the engine make a perfect one, by a transfer of her own to the same place."""
    folder = scene.interrupted("mallory")
    name = f"{scene.target}/{folder.name}"
    scene.engine_as_mallory(acts.FORGE, name)

    said = refused(scene, *words)

    assert f"belongs to user {USERS['mallory']}" in said


@pytest.mark.parametrize("words", [["--mode", "move"], nightly([])])
def test_a_staging_folder_that_was_swapped_between_two_runs_is_not_resumed(
    make_scene: Callable[..., Scene], words: list[str]
) -> None:
    """Where the target folder is everybody's (0777) she moves the genuine one away."""
    scene = make_scene(bits=0o777)
    genuine = scene.interrupted()
    name = f"{scene.target}/{genuine.name}"
    scene.host.act("mallory", "import os, sys; os.rename(sys.argv[1], sys.argv[2])", name,
                   f"{scene.target}/gone-away")  # fmt: skip
    folder = scene.interrupted("mallory")
    scene.engine_as_mallory(acts.FORGE, f"{scene.target}/{folder.name}")

    said = refused(scene, "--resume", *words)

    assert said.startswith("STAGING_NOT_OURS: ")


def test_a_cancelled_transfer_ends_though_mallory_put_pipes_in_its_place(
    make_scene: Callable[..., Scene],
) -> None:
    """Its clean-up meets the pipes."""
    scene = make_scene(bits=0o777)
    with scene.cli("--bwlimit", "100k") as program:
        wait_until(lambda: scene.staging().exists() or not program.runs)
        name = f"{scene.target}/{scene.staging_name()}"
        scene.host.act("mallory", "import os, sys; os.rename(sys.argv[1], sys.argv[1] + '-gone')",
                       name)  # fmt: skip
        scene.host.act("mallory", acts.PLANT, name, "777", "fifos", scene.precious)
        program.send(signal.SIGTERM)
        status, said = program.finish(SOON)

    scene.judge(status, said)
    assert status in (130, 1), said


@pytest.mark.parametrize("kind", ["c", nightly("b"), nightly("p")])
def test_a_device_in_a_planted_staging_folder_is_not_opened(scene: Scene, kind: str) -> None:
    """Only root can make one; it is mallory's all the same, as on a USB disk."""
    folder = scene.staging()
    folder.mkdir(mode=0o777)
    make = {"c": 0o020666, "b": 0o060666, "p": 0o010666}[kind]
    for name in acts.NOTES:
        os.mknod(folder / name, make, os.makedev(1, 5))
        os.chown(folder / name, USERS["mallory"], -1)
    os.chown(folder, USERS["mallory"], -1)

    assert refused(scene, "--resume").startswith("STAGING_NOT_OURS: ")


# -- files that a person names (H9) --------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", nightly("dangling"), nightly("fifo")])
def test_a_manifest_that_mallory_planted_is_refused(scene: Scene, kind: str) -> None:
    scene.host.act("mallory", """
import os, sys
path, kind, precious = sys.argv[1:]
if kind == "fifo":
    os.mkfifo(path)
else:
    os.symlink(precious + ("/key" if kind == "link" else "/new"), path)
""", f"{scene.target}/m.jsonl", kind, scene.precious)  # fmt: skip

    said = refused(scene, "--manifest", f"{scene.target}/m.jsonl")

    assert "m.jsonl" in said


def test_a_manifest_that_mallory_swaps_meanwhile_is_not_opened_again(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene(bits=0o777)
    manifest = f"{scene.target}/m.jsonl"
    with scene.cli("--manifest", manifest, "--bwlimit", "2M") as program:
        wait_until(lambda: scene.host.there(manifest).exists() or not program.runs)
        scene.host.act("mallory", """
import os, sys
os.rename(sys.argv[1], sys.argv[1] + ".gone")
os.symlink(sys.argv[2] + "/key", sys.argv[1])
""", manifest, scene.precious)  # fmt: skip
        status, said = program.finish()

    assert status == 0, said
    scene.judge(status, said)
    assert scene.host.there(manifest + ".gone").stat().st_mode & 0o077 == 0


# -- known names in /tmp, the var folder (H18) ------------------------------------------------


def test_names_in_tmp_that_mallory_took_or_swaps_change_nothing(scene: Scene) -> None:
    folders = [f"/tmp/{name}" for name in ("ketter-ssh-x", "ketter-plan-x", "ketter-0")]
    links = ["/tmp/ketter-ssh-y", "/tmp/ketter-plan-y"]
    scene.host.act("mallory", """
import os, sys
for path in sys.argv[2:5]:
    os.mkdir(path)
    os.symlink(sys.argv[1] + "/key", path + "/config")
for path in sys.argv[5:]:
    os.symlink(sys.argv[1], path)
""", scene.precious, *folders, *links)  # fmt: skip
    target, *access = scene.host.ssh(scene.runner, "bob", "/home/bob/in-tmp")
    meddle = [SYSTEM_PYTHON, "-c", acts.MEDDLE_IN_TMP, scene.precious]
    with scene.host.start("mallory", meddle) as meddler:
        wait_until(lambda: "meddling" in meddler.said())
        status, said = scene.cli(*access, target=target).finish()

    assert status == 0, said
    for path in folders:
        (scene.host.there(path) / "config").unlink()
        scene.host.there(path).rmdir()
    for path in links:
        scene.host.there(path).unlink()
    left = [path.name for path in scene.host.there("/tmp").iterdir() if "ketter" in path.name]
    assert left == []
    scene.assert_untouched()
    scene.assert_nothing_runs()


@pytest.mark.parametrize("kind", ["link", *map(nightly, ("fifo", "record", "folder_link"))])
def test_a_cache_folder_that_mallory_planted_is_neither_believed_nor_written_through(
    scene: Scene, kind: str
) -> None:
    """XDG_CACHE_HOME, where a record of ssh's client is kept, is everybody's here."""
    cache = f"{scene.target}/cache"
    scene.host.act("mallory", """
import os, sys
cache, kind, precious = sys.argv[1:]
os.mkdir(cache)
os.chmod(cache, 0o777)
own = cache + "/ketter"
if kind == "folder_link":
    os.symlink(precious, own)
    sys.exit()
os.mkdir(own)
os.chmod(own, 0o777)
if kind == "link":
    os.symlink(precious + "/key", own + "/ssh-client")
elif kind == "fifo":
    os.mkfifo(own + "/ssh-client")
else:
    with open(own + "/ssh-client", "w") as file:
        file.write("1 anything")
""", cache, kind, scene.precious)  # fmt: skip
    target, *access = scene.host.ssh(scene.runner, "bob", f"/home/bob/cache-{scene.runner}-{kind}")
    words = ["--from", scene.source, "--to", target, *access]
    program = scene.host.cli(scene.runner, *words, env={"XDG_CACHE_HOME": cache})

    status, said = program.finish(SOON)

    assert status == 0, said
    scene.assert_untouched()
    scene.assert_nothing_runs()


@pytest.mark.parametrize("kind", ["secrets", nightly("folder"), nightly("link")])
def test_up_refuses_a_var_folder_that_mallory_planted(
    shared_host: Host, runner: str, kind: str
) -> None:
    folder = f"/tmp/var-{runner}-{kind}"
    shared_host.act("mallory", """
import os, sys
folder, kind = sys.argv[1:]
stolen = os.path.expanduser("~/stolen")
open(stolen, "w").close()
os.chmod(stolen, 0o666)
real = folder if kind != "link" else os.path.expanduser("~/var-" + os.path.basename(folder))
os.mkdir(real)
os.chmod(real, 0o777)
if real != folder:
    os.symlink(real, folder)
if kind != "folder":
    os.symlink(stolen, real + "/secrets.env")
""", folder, kind)  # fmt: skip
    up = [*python(), "manage.py", "up", "--bind", "127.0.0.1:0"]
    status, said = shared_host.start(runner, up, {"KETTER_VAR_DIR": folder}, CHECKOUT).finish(SOON)

    assert status != 0
    assert "Ketter cannot " in said
    assert folder in said
    assert "Traceback" not in said
    assert shared_host.there(f"{home('mallory')}/stolen").read_bytes() == b""
