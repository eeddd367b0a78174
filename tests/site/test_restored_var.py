"""A var folder that comes from another machine: its kept name is not believed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.site.test_env import KEEP, under


def with_id(number: str, code: str, folder: Path) -> str:
    """As a machine with this /etc/machine-id runs those lines; none if it is empty."""
    file = folder / "machine-id"
    file.write_text(number)
    here = f"import pathlib, ketter_site.env as e; e.MACHINE_ID = pathlib.Path({str(file)!r})"
    return f"{here}; {code}"


@pytest.mark.parametrize("before", ["", "lab-1\n"], ids=["new", "of an earlier version"])
def test_a_var_folder_that_was_restored_on_another_machine_does_not_name_that(tmp_path, before):
    """It would give it the folders of the portals of the first one."""
    var, ours, other = tmp_path / "var", "0123456789abcdef" * 2, "f" * 32
    var.mkdir()
    if before:
        (var / "machine").write_text(before)
    said = under("lab-1", with_id(ours, KEEP, tmp_path), var)
    assert (said.returncode, said.stderr) == (0, "")
    assert (var / "machine").read_text() == "lab-1\n"
    assert stat.S_IMODE((var / "machine.mark").stat().st_mode) == 0o600
    assert ours not in (var / "machine.mark").read_text()
    name = "print(e.machine_name())"
    for code in (KEEP, name):
        said = under("lab-2", with_id(ours, code, tmp_path), var)
        assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == "lab-1\n"

    refused = under("lab-2", with_id(other, name, tmp_path), var).stderr.splitlines()[-1]
    assert "machine 'lab-1', and was written on another one than this" in refused
    assert str(var / "machine") in refused
    known = under("lab-2", with_id(other, name, tmp_path), var, KETTER_MACHINE="lab-1")
    assert known.stdout == "lab-1\n"
    assert under("lab-2", with_id("", name, tmp_path), var).stdout == "lab-1\n"
    (var / "machine").unlink()
    assert under("lab-2", with_id(other, name, tmp_path), var).stdout == "lab-2\n"
    assert under("lab-2", with_id(other, KEEP, tmp_path), var).returncode == 0
    assert under("lab-3", with_id(other, name, tmp_path), var).stdout == "lab-2\n"
