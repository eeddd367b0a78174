"""Public host keys as operators read them: one line, one fingerprint."""

from __future__ import annotations

import base64
import binascii

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

import engine

KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-rsa",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


def host_key_parse(line: str) -> engine.HostKey:
    """The key in a line like `ssh-ed25519 AAAA… comment`, without the comment.

    Only the two parsed words of the line go into a known_hosts file, so that a second
    line, a host pattern or a marker cannot get in. Raises ValidationError if the line
    is no public host key.
    """
    words = line.split()
    if "\n" in line.strip() or len(words) < 2 or words[0] not in KEY_TYPES:
        raise ValidationError(
            _("A host key is one line: its type and its base64 text, as in ssh-ed25519 AAAA….")
        )
    kind, text = words[0], words[1]
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValidationError(_("The base64 text of the host key is damaged.")) from None
    # The blob names its own type: a length (four bytes), then the name.
    if blob[4 : 4 + int.from_bytes(blob[:4], "big")] != kind.encode():
        raise ValidationError(
            _("The base64 text of the host key is of another type than the word before it.")
        )
    return engine.HostKey(line=f"{kind} {text}", fingerprint=engine.fingerprint(line))


def validate_host_key(value: str) -> None:
    """Raises ValidationError if the value is not one line with a public host key."""
    host_key_parse(value)
