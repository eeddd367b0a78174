"""The rules for what reaches a command line or a far program."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ValidationError

from portals import validators
from portals.host_keys import host_key_parse
from tests.portals.conftest import FINGERPRINT, HOST_KEY, make_private_key


@pytest.mark.parametrize(
    "host",
    ["srvtrf", "srv_trf-2.example.com", "10.0.0.7", "::1", "fe80::1%eth0", "2001:db8::a"],
)
def test_it_accepts_hosts(host: str) -> None:
    validators.validate_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "-oProxyCommand=id",
        "host\n",
        "host name",
        "user@host",
        "host/path",
        "$(id)",
        "`id`",
        "host;id",
        "host:22",
        "[::1]",
        "fe80::1%eth0;id",
        "ho%st",
        "höst",
        "a\x00b",
    ],
)
def test_it_refuses_hosts_that_ssh_could_misread(host: str) -> None:
    with pytest.raises(ValidationError, match="A host is a name"):
        validators.validate_host(host)


@pytest.mark.parametrize("name", ["root", "oscar.b", "LAB\\oscar", "o@example.com", "_svc", "a-b"])
def test_it_accepts_user_names(name: str) -> None:
    validators.validate_username(name)


@pytest.mark.parametrize("name", ["-lroot", "a b", "a\n", "a;id", "a$x", "LAB\\", "\\a", "a'b"])
def test_it_refuses_user_names_that_ssh_could_misread(name: str) -> None:
    with pytest.raises(ValidationError, match="A user name holds"):
        validators.validate_username(name)


@pytest.mark.parametrize("path", ["/", "/srv/media", "/srv/my films", "/srv/ünï", "/srv/a..b"])
def test_it_accepts_root_folders(path: str) -> None:
    validators.validate_root_path(path)


@pytest.mark.parametrize("path", ["srv", "~/media", "/srv/../etc", "/..", "/a\nb", "/a\x00", ""])
def test_it_refuses_root_folders_that_are_not_plain_and_absolute(path: str) -> None:
    with pytest.raises(ValidationError, match="The root folder"):
        validators.validate_root_path(path)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/srv/media/", "/srv/media"),
        ("//srv//media", "/srv/media"),
        ("/srv/./media/.", "/srv/media"),
    ],
)
def test_it_gives_a_root_folder_one_spelling(typed: str, kept: str) -> None:
    assert validators.root_path_normalise(typed) == kept


@pytest.mark.parametrize(
    "path", ["id_rsa", "~/.ssh/id", "/k/%u", "/k/${HOME}", '/k/"a"', "/k/../x", "/k\n", "/"]
)
def test_it_refuses_key_files_that_ssh_would_expand(path: str) -> None:
    with pytest.raises(ValidationError, match="The key file"):
        validators.validate_key_path(path)


def test_it_accepts_a_plain_key_file() -> None:
    validators.validate_key_path("/Users/José B/.ssh/id_ed25519")


def test_it_reads_a_host_key_line_and_its_fingerprint() -> None:
    key = host_key_parse(f"  {HOST_KEY} root@srvtrf \n")
    assert (key.line, key.fingerprint) == (HOST_KEY, FINGERPRINT)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        HOST_KEY + "\n" + HOST_KEY,
        "@cert-authority * " + HOST_KEY,
        "* " + HOST_KEY,
        HOST_KEY.replace("ssh-ed25519", "ssh-rsa", 1),
        HOST_KEY[:-1] + "!",
        "ssh-ed25519 AAAA",
    ],
)
def test_it_refuses_host_key_lines_that_say_more_or_less_than_one_key(line: str) -> None:
    with pytest.raises(ValidationError):
        host_key_parse(line)


def test_it_mends_the_line_ends_of_a_pasted_private_key(private_key: str) -> None:
    pasted = "  " + private_key.strip().replace("\n", "\r\n")
    assert validators.private_key_clean(pasted) == private_key


def test_it_refuses_a_private_key_with_a_passphrase(tmp_path: Path) -> None:
    locked = make_private_key(tmp_path / "locked", passphrase="open sesame")
    with pytest.raises(ValidationError, match="protected by a passphrase"):
        validators.private_key_clean(locked)


@pytest.mark.parametrize("text", ["", "hunter2", HOST_KEY])
def test_it_refuses_what_is_no_private_key(text: str) -> None:
    with pytest.raises(ValidationError, match="not a private key"):
        validators.private_key_clean(text)


@pytest.mark.parametrize("password", ["", "a\nb", "a\x00b"])
def test_it_refuses_passwords_that_no_prompt_takes(password: str) -> None:
    with pytest.raises(ValidationError):
        validators.password_clean(password)
