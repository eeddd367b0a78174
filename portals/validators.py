"""Rules for values that operators type and that reach a command line or a far program.

Each rule matches the full value (never `$`, which lets a trailing newline
through) and raises ValidationError with one sentence.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

#: A name or an IPv4 address; a leading dash would be read by ssh as an option.
HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
IPV6_ZONE = re.compile(r"[A-Za-z0-9_.-]*")
#: ssh itself refuses a name that ends in a backslash; inside, `DOMAIN\user` is common.
USERNAME = re.compile(r"[A-Za-z0-9_.](?:[A-Za-z0-9_.@\\-]*[A-Za-z0-9_.@-])?")
#: ssh expands %, $ and ~ in an IdentityFile and knows quotes.
KEY_PATH = re.compile(r"/[^\x00-\x1f\x7f%$~\"'\\]+")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def validate_host(value: str) -> None:
    """Accept a host name, an IPv4 or an IPv6 address, and nothing ssh could misread."""
    if not (_is_ipv6(value) if ":" in value else HOST_NAME.fullmatch(value)):
        raise ValidationError(
            _(
                "A host is a name like srvtrf.example.com or an IP address (IPv6 without "
                "brackets); it has no user name, port, space or path in it."
            ),
            code="host",
        )


def _is_ipv6(value: str) -> bool:
    address, _percent, zone = value.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return IPV6_ZONE.fullmatch(zone) is not None


def validate_username(value: str) -> None:
    """Accept a login name of the far host, and nothing ssh could misread."""
    if not USERNAME.fullmatch(value):
        raise ValidationError(
            _("A user name holds letters, digits and . _ - @ \\ and does not start with a dash."),
            code="username",
        )


def validate_machine(value: str) -> None:
    """Accept a machine's name as KETTER_MACHINE has it; its length is the column's."""
    if not HOST_NAME.fullmatch(value):
        raise ValidationError(
            _("A machine's name holds letters, digits and _ . - and starts with no dot or dash."),
            code="machine",
        )


def validate_root_path(value: str) -> None:
    """Accept an absolute folder without `..` and without control characters."""
    if not value.startswith("/"):
        raise ValidationError(_("The root folder is an absolute path: it starts with /."))
    if CONTROL.search(value):
        raise ValidationError(_("The root folder holds a control character; remove it."))
    if ".." in value.split("/"):
        # Ketter does not collapse it: with symlinks, a/../b is not b.
        raise ValidationError(_("The root folder has a .. in it; enter its path without one."))


def root_path_normalise(value: str) -> str:
    """A valid root folder, normalised: single slashes, none at the end, no `.`."""
    return "/" + posixpath.normpath(value).lstrip("/")


def validate_key_path(value: str) -> None:
    """Accept the absolute path of a key file that ssh takes literally."""
    if not KEY_PATH.fullmatch(value) or ".." in value.split("/"):
        raise ValidationError(
            _(
                "The key file is an absolute path on the worker, without .. and without "
                "any of % $ ~ \" ' \\ (ssh would expand them)."
            ),
            code="key_path",
        )


def password_clean(value: str) -> str:
    """The password as it is. Raises ValidationError if it is empty or has control characters.

    A password prompt can take such a character for the end of the line.
    """
    if not value:
        raise ValidationError(_("Enter the password."))
    if CONTROL.search(value):
        raise ValidationError(
            _("The password holds a line break or a control character; remove it.")
        )
    return value


def private_key_clean(value: str) -> str:
    """A private key as OpenSSH reads it: Unix line ends, one at the end, no passphrase.

    Raises ValidationError if it is no private key, or has a passphrase.
    """
    text = "\n".join(line.strip() for line in value.strip().splitlines()) + "\n"
    data = text.encode()
    load = load_ssh_private_key if "BEGIN OPENSSH" in text else load_pem_private_key
    try:
        load(data, password=None)
    except TypeError:
        raise ValidationError(
            _(
                "The private key is protected by a passphrase, which a worker cannot enter. "
                "Store the key without one, or load it into the worker's ssh-agent."
            )
        ) from None
    except UnsupportedAlgorithm:
        return text  # Keys of hardware tokens: only OpenSSH itself can check them.
    except ValueError:
        raise ValidationError(
            _("This is not a private key; one begins with -----BEGIN … PRIVATE KEY-----.")
        ) from None
    return text
