"""The rigs of hostile hosts and users, shared by a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.hostile import lies
from tests.hostile.scene import Scene, write
from tests.hostile.shared_host import RUNNERS, SYSTEM_PYTHON, USERS, Host, home, missing


@pytest.fixture(scope="session")
def shared_host() -> Iterator[Host]:
    """A host with the users ketter, mallory and bob: each test has a folder of its own there."""
    if reason := missing():
        pytest.skip(reason)
    with Host() as host:
        for name in USERS:
            write(host.there(f"{home(name)}/kept/file"), name.encode())
        yield host


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    """Who runs Ketter: root, and an ordinary user."""
    return str(request.param)


@pytest.fixture
def make_scene(shared_host: Host, runner: str) -> Iterator[Callable[..., Scene]]:
    """Set a scene for the runner, with options of `Scene`."""
    made: list[Scene] = []

    def make(**options: object) -> Scene:
        made.append(Scene(shared_host, runner, **options))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    """A scene with a target folder as /tmp: everybody may make files there (1777)."""
    return make_scene()


@pytest.fixture
def lie(shared_host: Host) -> Iterator[Callable[[str], None]]:
    """Have mallory's account lie."""
    folder = shared_host.there(f"{home('mallory')}/bin")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    file = folder / "lies.py"
    lies.make_python(folder, SYSTEM_PYTHON, f"{home('mallory')}/bin/lies.py")

    def tell(text: str) -> None:
        file.write_text(text)
        file.chmod(0o644)

    yield tell
    file.unlink(missing_ok=True)
