"""One contract, every configuration of this side's ssh: it has the outcome that its row says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Endpoint, SshAccess
from tests.accounts.client_rows import ROWS, Jump, Scene, has_ipv6
from tests.accounts.conftest import build, judge
from tests.rig.sshd import Sshd

pytestmark = pytest.mark.xdist_group("configurations")


class BothFamilies(Sshd):
    """The rig's sshd, at the loopback addresses of both families."""

    def _write_server_config(self) -> Path:
        path = super()._write_server_config()
        if has_ipv6():
            path.write_text(f"ListenAddress ::1\n{path.read_text()}")
        return path


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Sshd, Sshd, Sshd]]:
    with BothFamilies() as far, Jump() as jump, Jump(refuses=True) as closed:
        yield far, jump, closed


def cases() -> list[object]:
    """One end of each, in turn; the other one nightly."""
    found = []
    for number, (name, row) in enumerate(ROWS.items()):
        for end in ("source", "target"):
            late = row.nightly or end != ("source", "target")[number % 2]
            marks = [pytest.mark.nightly] if late else []
            if name == "literal":
                marks.append(pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"))
            found.append(pytest.param(name, end, marks=marks, id=f"{name}-{end}"))
    return found


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(("name", "end"), cases())
def test_a_configuration_has_the_outcome_of_its_row(
    servers: tuple[Sshd, Sshd, Sshd], tmp_path: Path, name: str, end: str
) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    config = folder / "ssh_config"
    row = ROWS[name]
    config.write_text(row.config(Scene(*servers, folder)))
    config.chmod(0o600)
    build(tmp_path / "a")
    access = SshAccess(row.host, config_file=str(config))
    if row.host == "::1":
        access = access._replace(port=servers[0].port, username=servers[0].username)
    far = {end: access}

    judge(
        Endpoint(str(tmp_path), "a", far.get("source")),
        Endpoint(str(tmp_path), "b", far.get("target")),
        (tmp_path / "a", tmp_path / "b"),
        row.outcome,
    )

    assert not (folder / "local").exists(), "LocalCommand was run"
    assert not [path for path in folder.iterdir() if path.is_socket()], "a connection stays"
