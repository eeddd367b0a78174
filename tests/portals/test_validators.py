"""The rules for what reaches a command line or a far program."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.exceptions import ValidationError

from portals import validators
from portals.host_keys import host_key_parse
from tests.portals.helpers import FINGERPRINT, HOST_KEY

ACCEPTED = {
    validators.validate_host: (
        *("srvtrf", "srv_trf-2.example.com", "10.0.0.7", "::1", "fe80::1%eth0", "2001:db8::a"),
    ),
    validators.validate_username: ("root", "oscar.b", "LAB\\oscar", "o@example.com", "_svc", "a-b"),
    validators.validate_root_path: ("/", "/srv/media", "/srv/my films", "/srv/ünï", "/srv/a..b"),
    validators.validate_key_path: ("/Users/José B/.ssh/id_ed25519",),
}
#: A rule and its sentence -> what ssh, a shell or a far program could misread, and plain nonsense.
REFUSED = {
    (validators.validate_host, "A host is a name"): (
        *("-oProxyCommand=id", "host\n", "host name", "user@host", "host/path", "$(id)", "`id`"),
        *("host;id", "host:22", "[::1]", "fe80::1%eth0;id", "ho%st", "höst", "a\x00b"),
    ),
    (validators.validate_username, "A user name holds"): (
        *("-lroot", "a b", "a\n", "a;id", "a$x", "LAB\\", "\\a", "a'b"),
    ),
    (validators.validate_root_path, "The root folder"): (
        *("srv", "~/media", "/srv/../etc", "/..", "/a\nb", "/a\x00", ""),
    ),
    (validators.validate_key_path, "The key file"): (
        *("id_rsa", "~/.ssh/id", "/k/%u", "/k/${HOME}", '/k/"a"', "/k/../x", "/k\n", "/"),
    ),
    (host_key_parse, "A host key is one line"): (
        *("", "ssh-ed25519", HOST_KEY + "\n" + HOST_KEY),
        *("@cert-authority * " + HOST_KEY, "* " + HOST_KEY),
    ),
    (host_key_parse, "host key is damaged"): (HOST_KEY[:-1] + "!",),
    (host_key_parse, "host key is of another type"): (
        *(HOST_KEY.replace("ssh-ed25519", "ssh-rsa", 1), "ssh-ed25519 AAAA"),
    ),
    (validators.private_key_clean, "not a private key"): ("", "hunter2", HOST_KEY),
    (validators.password_clean, "Enter the password"): ("",),
    (validators.password_clean, "a line break or a control character"): ("a\nb", "a\x00b"),
}


@pytest.mark.parametrize(
    ("rule", "value"), [(rule, value) for rule, values in ACCEPTED.items() for value in values]
)
def test_a_rule_accepts_plain_hosts_user_names_and_paths(
    rule: Callable[[str], object], value: str
) -> None:
    rule(value)


@pytest.mark.parametrize(
    ("rule", "sentence", "value"),
    [(*row, value) for row, values in REFUSED.items() for value in values],
)
def test_a_rule_refuses_an_unsafe_or_malformed_value_with_its_sentence(
    rule: Callable[[str], object], sentence: str, value: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        rule(value)


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
def test_root_path_normalise_gives_each_folder_one_spelling(typed: str, kept: str) -> None:
    assert validators.root_path_normalise(typed) == kept


def test_host_key_parse_returns_the_key_line_and_its_fingerprint() -> None:
    key = host_key_parse(f"  {HOST_KEY} root@srvtrf \n")
    assert (key.line, key.fingerprint) == (HOST_KEY, FINGERPRINT)


def test_private_key_clean_repairs_the_line_ends_of_a_pasted_key(private_key: str) -> None:
    pasted = "  " + private_key.strip().replace("\n", "\r\n")
    assert validators.private_key_clean(pasted) == private_key
