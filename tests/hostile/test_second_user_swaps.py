"""mallory swaps folders, and makes files, while a transfer of another user's runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.hostile import acts
from tests.hostile.scene import FILES, SECRET, Scene
from tests.hostile.shared_host import SYSTEM_PYTHON, USERS, Host, home
from tests.rig.lanes import nightly
from tests.rig.lying import THIEF
from tests.rig.waiting import wait_until

ROUNDS = [1, *(nightly(number) for number in range(2, 9))]


#: Times that a race is run until mallory was quick enough, on a busy machine.
TRIES = 15


class TooSlow(Exception):
    """mallory did nothing before the transfer had ended: that shows nothing."""


def until_she_is_quick(race: Callable[[], None]) -> None:
    """Run a race until mallory had a part in it; fails if she never had."""
    for _ in range(TRIES):
        try:
            race()
        except TooSlow:
            continue
        return
    pytest.fail("mallory was too slow each time: this shows nothing")


@contextmanager
def swapping(host: Host, folder: str, begins: str, other: str) -> Iterator[None]:
    """Have mallory swap a folder by a link to another one, once a name has appeared in it."""
    words = [SYSTEM_PYTHON, "-c", acts.SWAP, folder, begins, other]
    with host.start("mallory", words, cwd="/") as swapper:
        wait_until(lambda: "watching" in swapper.said())
        yield
        assert swapper.runs, swapper.said()
        has_swapped = "swapping" in swapper.said()
    # She may have been amid it.
    away, link = host.there(f"{folder}.away"), host.there(folder)
    if away.exists():
        if link.is_symlink():
            link.unlink()
        away.rename(link)
    if not has_swapped:
        raise TooSlow


# -- the target folder, and one in it -----------------------------------------------------


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("where", ["target", "inside"])
def test_a_target_folder_that_mallory_swaps_leads_nowhere_else(
    make_scene: Callable[..., Scene], where: str, number: int
) -> None:
    """She owns the folder above, so that nothing stops her; the transfer may fail."""
    mode = ["--mode", "move"] if number % 2 else []
    until_she_is_quick(lambda: race_for_the_target(make_scene(bits=0o777), where, mode))


def race_for_the_target(scene: Scene, where: str, mode: list[str]) -> None:
    target = f"{scene.target}/in"
    swapped = target if where == "target" else f"{target}/reel_0"
    scene.host.act("mallory", "import os, sys\nfor path in sys.argv[1:]: os.mkdir(path); os.chmod(path, 0o777)",  # noqa: E501
                   *dict.fromkeys([target, swapped]))  # fmt: skip
    begins = ".ketter-" if where == "target" else "f"
    with swapping(scene.host, swapped, begins, scene.precious):
        status, said = scene.cli("--bwlimit", "8M", *mode, target=target).finish()

    scene.assert_untouched()
    assert status in (0, 1, 3, 4, 5), (status, said)
    assert "Traceback" not in said
    source, there = scene.host.there(scene.source), scene.host.there(target)
    for name, content in FILES.items():
        genuine = [path for path in (source / name, there / name) if path.exists()]
        assert genuine, f"{name} is neither at the source nor at the target"
        assert all(path.read_bytes() == content for path in genuine)
    scene.assert_nothing_runs()


# -- a folder of the source ---------------------------------------------------------------


@pytest.mark.parametrize("number", ROUNDS)
def test_a_source_folder_that_mallory_swaps_gives_and_loses_nothing_of_others(
    make_scene: Callable[..., Scene], number: int
) -> None:
    """The other folder has the same names: followed, a move would read and remove its files."""
    mode = ["--mode", "move"] if number % 2 else []
    until_she_is_quick(lambda: race_for_the_source(make_scene(bits=0o777, owner="mallory"), mode))


def race_for_the_source(scene: Scene, mode: list[str]) -> None:
    scene.host.there(scene.path).chmod(0o777)
    with swapping(scene.host, f"{scene.source}/reel_1", "f", f"{scene.precious}/twin/reel_1"):
        status, said = scene.cli("--bwlimit", "8M", *mode).finish()

    scene.assert_untouched()
    assert status in (0, 1, 3, 4, 5), (status, said)
    for path in scene.host.there(scene.target).rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_bytes(), f"{path} was read through the link"
    scene.assert_nothing_runs()


# -- files that appear meanwhile (H19) --------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_no_file_that_mallory_makes_while_it_is_published_is_replaced(
    make_scene: Callable[..., Scene], policy: str
) -> None:
    until_she_is_quick(lambda: race_for_names(make_scene(bits=0o1777), policy))


def race_for_names(scene: Scene, policy: str) -> None:
    names = [f"x{number:04}" for number in range(1500)]
    source = scene.host.there(f"{scene.path}/many")
    source.mkdir()
    for name in names:
        (source / name).write_bytes(b"genuine")
    os.chown(source, USERS[scene.runner], -1)
    words = [SYSTEM_PYTHON, "-c", acts.APPEAR, scene.target, *names]
    with scene.host.start("mallory", words, cwd="/") as maker:
        wait_until(lambda: "waiting" in maker.said())
        program = scene.cli("--on-conflict", policy, source=f"{scene.path}/many")
        status, said = program.finish()
        made = maker.end().split()[1:]

    assert status in (0, 1, 3), said
    if not made:
        raise TooSlow
    for name in made:
        there = scene.host.there(f"{scene.target}/{name}")
        assert there.lstat().st_uid == USERS["mallory"], f"{name} was replaced"
        assert there.read_bytes() == b"mallory's"
    assert status != 0 or policy == "skip", "files were not delivered, and it is called done"
    scene.assert_nothing_runs()


# -- what runs in an account (H1, H13) --------------------------------------------------------


def kept(host: Host) -> str:
    """A folder of mallory's own in her home, empty."""
    folder = host.there(f"{home('mallory')}/own")
    folder.mkdir(exist_ok=True)
    os.chown(folder, USERS["mallory"], -1)
    for path in folder.iterdir():
        path.unlink()
    return f"{home('mallory')}/own"


@pytest.mark.parametrize("to", ["worker", "bob"])
def test_mallorys_account_finds_no_key_to_command_the_other_end_with(
    make_scene: Callable[..., Scene], lie: Callable[[str], None], to: str
) -> None:
    """H1: her python3 reads all of /proc amid the transfer, and tries all that looks like a key."""
    scene = make_scene(owner="mallory")
    host = scene.host
    own = kept(host)
    planted = f"{home(scene.runner if to == 'worker' else 'bob')}/planted"
    thief = THIEF.replace("PLANTED", planted.lstrip("/")).replace("TRIED", f"{own}/tried")
    lie(f"if ROLE == 'source':\n"
        f"    import engine.agent.source.commands as commands\n"
        f"    exec({thief!r}, commands.__dict__)\n")  # fmt: skip
    source, *access = host.ssh(scene.runner, "mallory", scene.source)
    target = scene.target
    if to == "bob":
        target, *_ = host.ssh(scene.runner, "bob", f"/home/bob/in-{scene.runner}")

    status, said = scene.cli(*access, source=source, target=target).finish()

    assert status == 0, said
    guesses = host.there(f"{own}/tried").read_text().split("\n")
    assert len(guesses) > 2, "she has found nothing to try: this shows nothing"
    assert "THE KEY" not in guesses
    assert not host.there(planted).exists()
    scene.assert_untouched()
    scene.assert_nothing_runs()


def test_no_ssh_to_a_hanging_account_outlives_a_killed_command_line(
    make_scene: Callable[..., Scene], lie: Callable[[str], None]
) -> None:
    """H13; mallory's python3 sleeps, and her own processes are her own matter."""
    scene = make_scene()
    host = scene.host
    lie("# instead\nimport time; time.sleep(60)")
    target, *access = host.ssh(scene.runner, "mallory", f"{home('mallory')}/in")

    def clients() -> list[bytes]:
        lines = host.processes().values()
        return [line for line in lines if line.split(b"\0")[0].rpartition(b"/")[2] == b"ssh"]

    with scene.cli(*access, target=target) as program:
        wait_until(lambda: any(b"time.sleep" in line for line in host.processes().values()))
        assert clients()
        program.send(signal.SIGKILL)
        wait_until(lambda: not clients(), 5)
    host.end_processes_of("mallory")
    scene.assert_untouched()
    scene.assert_nothing_runs()
