"""Checks of the installation itself: Python, settings, credentials."""

from __future__ import annotations

import platform
import stat
import sys
from pathlib import Path

from cryptography.fernet import Fernet
from django.conf import settings

from dku.findings import Finding, Verdict, worst
from ketter_site.env import LOOPBACK
from portals.models import Credential, CredentialKind
from portals.services import credentials_unbound, credentials_unusable

PYTHON_MINIMUM = (3, 11)
#: Characters, and different ones, that Django's own deployment check demands of a SECRET_KEY.
SECRET_LENGTH = 50
SECRET_DIFFERENT = 5


def python() -> Finding:
    """Check that Ketter runs on this Python."""
    version = platform.python_version()
    measured = {"version": version, "executable": sys.executable, "system": platform.platform()}
    if sys.version_info < PYTHON_MINIMUM:
        minimum = ".".join(map(str, PYTHON_MINIMUM))
        return Finding(
            Verdict.FAIL,
            version,
            f"Ketter needs Python {minimum} or newer, this is {version}.",
            "Install a newer Python and make the virtual environment again.",
            measured=measured,
        )
    return Finding(Verdict.PASS, version, "This Python runs Ketter.", measured=measured)


def _secret_key_faults() -> list[tuple[Verdict, str]]:
    key = settings.SECRET_KEY
    if len(key) >= SECRET_LENGTH and len(set(key)) >= SECRET_DIFFERENT:
        return []
    sentence = (
        f"KETTER_SECRET_KEY is weak: it has {len(key)} characters, {len(set(key))} of them "
        f"different, and needs {SECRET_LENGTH} with {SECRET_DIFFERENT} different."
    )
    return [(Verdict.FAIL, sentence)]


def _field_key_faults() -> list[tuple[Verdict, str]]:
    faults = []
    for number, key in enumerate(settings.FIELD_KEYS, start=1):
        try:
            Fernet(key)
        except ValueError:
            faults.append((Verdict.FAIL, f"KETTER_FIELD_KEYS: key {number} is not a Fernet key."))
    return faults


def _exposure_faults() -> list[tuple[Verdict, str]]:
    public = set(settings.ALLOWED_HOSTS).difference(LOOPBACK)
    faults = []
    if settings.DEBUG:
        # Error pages show settings and source: harmless only if no other machine reaches them.
        verdict = Verdict.FAIL if public else Verdict.WARN
        faults.append((verdict, "KETTER_DEBUG is on: error pages show source and settings."))
    if not settings.ALLOWED_HOSTS:
        faults.append((Verdict.FAIL, "KETTER_ALLOWED_HOSTS is empty: every request is refused."))
    if "*" in settings.ALLOWED_HOSTS:
        faults.append((Verdict.WARN, "KETTER_ALLOWED_HOSTS has *: any Host header is accepted."))
    return faults


def configuration() -> Finding:
    """Check that the keys are strong, and that the site is not more open than intended."""
    faults = [*_secret_key_faults(), *_field_key_faults(), *_exposure_faults()]
    measured = {
        "secret_key_length": len(settings.SECRET_KEY),
        "field_keys": len(settings.FIELD_KEYS),
        "debug": settings.DEBUG,
        "allowed_hosts": list(settings.ALLOWED_HOSTS),
    }
    value = (
        f"secret {len(settings.SECRET_KEY)} characters, {len(settings.FIELD_KEYS)} field key(s), "
        f"debug {'on' if settings.DEBUG else 'off'}, hosts {', '.join(settings.ALLOWED_HOSTS)}"
    )
    if not faults:
        return Finding(Verdict.PASS, value, "The settings are sound.", measured=measured)
    return Finding(
        worst(verdict for verdict, _ in faults),
        value,
        " ".join(sentence for _, sentence in faults),
        "Set these in the environment or in .env (deploy/env.example shows each).",
        measured=measured,
    )


def _key_file_fault(credential: Credential) -> tuple[Verdict, str] | None:
    # Only a warning: the workers read the file, and may run on another machine.
    try:
        mode = Path(credential.key_path).stat().st_mode
    except OSError as error:
        return Verdict.WARN, f"{credential.name}: {credential.key_path}: {error.strerror}."
    if stat.S_IMODE(mode) & 0o077:
        return Verdict.WARN, f"{credential.name}: {credential.key_path} is open to other users."
    return None


def credentials() -> Finding:
    """Check that the field keys open every stored secret, and that key files are private."""
    rows = list(Credential.objects.all())
    faults = [(Verdict.FAIL, f"{row.name}: {error}") for row, error in credentials_unusable()]
    key_files = (row for row in rows if row.kind == CredentialKind.KEY_FILE)
    faults += [fault for fault in map(_key_file_fault, key_files) if fault]
    if unbound := credentials_unbound():
        sentence = f"{len(unbound)} secret(s) are of an older Ketter, and would open in any row: "
        names = ", ".join(row.name for row in unbound)
        faults.append((Verdict.WARN, f"{sentence}{names}. Run manage.py rotate_credentials."))
    measured = {"credentials": len(rows), "faulty": len(faults), "unbound": len(unbound)}
    value = f"{len(rows)} credential(s)"
    if not faults:
        return Finding(Verdict.PASS, value, "Every credential can be used.", measured=measured)
    return Finding(
        worst(verdict for verdict, _ in faults),
        value,
        f"{len(rows)} credentials: {len(faults)} fault(s).",
        "Put the key that encrypted them back into KETTER_FIELD_KEYS, or set the secrets again; "
        "make key files readable for the worker's user only (chmod 600).",
        details=tuple(sentence for _, sentence in faults),
        measured=measured,
    )
