"""Every way a portal can refuse, as one tree.

PortalError                 code, status_code (for the API), retry (as in engine.errors)
├── CannotDecrypt           no key of this installation opens the secret
│   └── SecretOfAnotherRow  it was made for another row of the database
├── PortalDisabled          an operator took the portal out of use
├── HostKeyNotPinned        no host key is pinned yet
├── OtherMachine            a portal of the kind *this machine*, and this is another one
├── MachineAlive            its workers are alive, so it has not been renamed
├── MachineNotAlive         no worker says that it is of that machine
├── PortalMoved             its credential belongs to another address than the job's
├── PortalChanged           edited while it was tested
├── PortalInUse             jobs need it
└── CredentialInUse         portals need it
"""

from __future__ import annotations

from engine.errors import NEEDS_PERSON, PERMANENT, TRANSIENT


class PortalError(Exception):
    """A portal or credential cannot be used as asked; the message is a sentence for a person."""

    code = "PORTAL_ERROR"
    status_code = 409
    retry = NEEDS_PERSON


class CannotDecrypt(PortalError):
    """A stored secret cannot be opened with any key in KETTER_FIELD_KEYS."""

    code = "CANNOT_DECRYPT"
    status_code = 500


class SecretOfAnotherRow(CannotDecrypt):
    """A stored secret was encrypted for another row: a program copied it from there."""

    code = "SECRET_OF_ANOTHER_ROW"


class PortalDisabled(PortalError):
    """The portal is disabled, so no job may use it."""

    code = "PORTAL_DISABLED"


class HostKeyNotPinned(PortalError):
    """The portal has no pinned host key, so Ketter cannot tell the host from an impostor."""

    code = "HOST_KEY_UNKNOWN"


class OtherMachine(PortalError):
    """The portal's folder is on another machine than this process."""

    code = "OTHER_MACHINE"
    retry = TRANSIENT  # The job goes back into the queue, where a worker of that machine takes it.


class MachineAlive(PortalError):
    """Workers of a machine are alive under its name, so it has no new one."""

    code = "MACHINE_ALIVE"
    retry = PERMANENT


class MachineNotAlive(PortalError):
    """No worker is alive at the machine that a portal should be on."""

    code = "MACHINE_NOT_ALIVE"
    retry = PERMANENT


class PortalMoved(PortalError):
    """The portal has moved since the job began, and its credential has changed as well."""

    code = "PORTAL_MOVED"


class PortalChanged(PortalError):
    """The portal was edited while it was tested, so the result is about its old fields."""

    code = "PORTAL_CHANGED"
    retry = TRANSIENT


class PortalInUse(PortalError):
    """Jobs refer to the portal, so it stays."""

    code = "PORTAL_IN_USE"
    retry = PERMANENT


class CredentialInUse(PortalError):
    """Portals refer to the credential, so it stays."""

    code = "CREDENTIAL_IN_USE"
    retry = PERMANENT
