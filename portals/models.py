"""Portals (where) and credentials (how to get in)."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from portals.fields import EncryptedTextField
from portals.host_keys import host_key_parse, validate_host_key
from portals.kinds import KINDS, PortalKind, fields_of_others
from portals.validators import (
    root_path_normalise,
    validate_host,
    validate_key_path,
    validate_machine,
    validate_root_path,
    validate_username,
)


class CredentialKind(models.TextChoices):
    """How Ketter proves its identity at a host."""

    PASSWORD = "password", _("password")
    PRIVATE_KEY = "private_key", _("private key, stored here")
    KEY_FILE = "key_file", _("private key, a file on the worker")
    AGENT = "agent", _("ssh-agent of the worker")


#: The kinds whose secret Ketter stores itself.
SECRET_KINDS = (CredentialKind.PASSWORD, CredentialKind.PRIVATE_KEY)


class Credential(models.Model):
    """A secret, or the way to one. The secret can be written but never read back."""

    name = models.SlugField(_("name"), max_length=64, unique=True)
    kind = models.CharField(_("kind"), max_length=16, choices=CredentialKind)
    secret = EncryptedTextField(_("secret"), blank=True, default="", editable=False)
    key_path = models.CharField(
        _("key file"),
        max_length=4096,
        blank=True,
        default="",
        validators=[validate_key_path],
        help_text=_("Absolute path on the worker's machine, readable by the worker's user."),
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        db_table = "credentials"
        ordering: ClassVar = ["name"]
        verbose_name = _("credential")
        verbose_name_plural = _("credentials")
        constraints: ClassVar = [
            models.CheckConstraint(
                name="credential_kind_known", condition=Q(kind__in=CredentialKind.values)
            ),
            models.CheckConstraint(
                name="credential_secret_iff_kind_holds_one",
                condition=(Q(kind__in=["password", "private_key"]) & ~Q(secret=""))
                | (Q(kind__in=["key_file", "agent"]) & Q(secret="")),
            ),
            models.CheckConstraint(
                name="credential_key_path_iff_key_file",
                condition=(Q(kind="key_file") & Q(key_path__startswith="/"))
                | (~Q(kind="key_file") & Q(key_path="")),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Name the wrong field: the constraint behind this check names none."""
        if self.kind == CredentialKind.KEY_FILE and not self.key_path:
            raise ValidationError({"key_path": _("Enter the absolute path of the key file.")})
        if self.kind != CredentialKind.KEY_FILE and self.key_path:
            raise ValidationError(
                {"key_path": _("Only a credential of the kind “key file” has a path.")}
            )

    @property
    def row(self) -> str:
        """The name of this row in its encrypted secret, see `portals.crypto`."""
        return f"credential {self.pk} {self.kind}"

    @property
    def has_secret(self) -> bool:
        """True if a secret is stored; Ketter never shows the secret itself."""
        return bool(self.secret)


class PortalState(models.TextChoices):
    """Says if jobs may use a portal."""

    ACTIVE = "active", _("active")
    DISABLED = "disabled", _("disabled")


class PortalHealth(models.TextChoices):
    """The result of the last connection test."""

    UNKNOWN = "unknown", _("unknown")
    OK = "ok", _("ok")
    FAILING = "failing", _("failing")
    HOST_KEY_CHANGED = "host_key_changed", _("host key changed")


class Machine(models.Model):
    """A machine that has, or had, workers: each worker notes that it is alive."""

    name = models.CharField(_("name"), max_length=64, unique=True)
    seen_at = models.DateTimeField(_("last seen"))

    class Meta:
        db_table = "machines"
        ordering: ClassVar = ["name"]
        verbose_name = _("machine")
        verbose_name_plural = _("machines")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Portal(models.Model):
    """A root folder on a host: the place jobs start from or end at."""

    name = models.SlugField(_("name"), max_length=64, unique=True)
    kind = models.CharField(_("kind"), max_length=8, choices=PortalKind)
    host = models.CharField(
        _("host"),
        max_length=255,
        blank=True,
        default="",
        validators=[validate_host],
    )
    port = models.PositiveIntegerField(
        _("port"), default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    username = models.CharField(
        _("user name"),
        max_length=64,
        blank=True,
        default="",
        validators=[validate_username],
    )
    machine = models.CharField(
        _("machine"),
        max_length=64,
        blank=True,
        default="",
        db_default="",
        validators=[validate_machine],
        help_text=_(
            "The machine that has the root folder, as KETTER_MACHINE names it there: only its "
            "workers use it. Empty: the only machine that has workers, else the web server's."
        ),
    )
    former_machines = models.TextField(
        _("earlier names of the machine"), blank=True, default="", db_default="", editable=False
    )
    root_path = models.CharField(
        _("root folder"),
        max_length=4096,
        validators=[validate_root_path],
        help_text=_("Jobs of this portal stay below this folder."),
    )
    credential = models.ForeignKey(
        Credential,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="portals",
        verbose_name=_("credential"),
    )
    host_key = models.TextField(
        _("pinned host key"),
        blank=True,
        default="",
        validators=[validate_host_key],
        help_text=_("As in known_hosts, without the host name: ssh-ed25519 AAAA…"),
    )
    max_streams = models.PositiveSmallIntegerField(
        _("streams at once"), default=4, validators=[MinValueValidator(1), MaxValueValidator(32)]
    )
    max_jobs = models.PositiveSmallIntegerField(
        _("jobs at once"), default=0, help_text=_("Counted over all workers; 0: no limit.")
    )
    bandwidth_limit = models.BigIntegerField(
        _("bandwidth limit"),
        default=0,
        validators=[MinValueValidator(0)],
        help_text=_("Bytes per second, shared by all jobs that run at once; 0: no limit."),
    )
    real_root = models.TextField(
        _("root folder, links resolved"),
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text=_("Recorded at the first connection; jobs stop if the root is another folder."),
    )
    root_confirmed_at = models.DateTimeField(
        _("root folder confirmed"), null=True, blank=True, editable=False
    )
    state = models.CharField(
        _("state"), max_length=16, choices=PortalState, default=PortalState.ACTIVE
    )
    health = models.CharField(
        _("health"),
        max_length=20,
        choices=PortalHealth,
        default=PortalHealth.UNKNOWN,
        editable=False,
    )
    health_message = models.TextField(_("last result"), blank=True, default="", editable=False)
    capabilities = models.JSONField(_("capabilities"), default=dict, blank=True, editable=False)
    checked_at = models.DateTimeField(_("tested"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    #: True in a copy that `portals.endpoints.thawed` makes for a job at the portal's old address,
    #: if the credential is for the new one.
    lost_credential = False

    class Meta:
        db_table = "portals"
        ordering: ClassVar = ["name"]
        verbose_name = _("portal")
        verbose_name_plural = _("portals")
        permissions: ClassVar = [("test_portal", "Can test portal")]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="portal_host_iff_ssh",
                condition=(Q(kind="ssh") & ~Q(host="")) | (Q(kind="local") & Q(host="")),
            ),
            models.CheckConstraint(
                name="portal_machine_only_local",
                condition=Q(kind="local") | Q(machine=""),
            ),
            models.CheckConstraint(
                name="portal_credential_only_ssh",
                condition=Q(kind="ssh") | Q(credential__isnull=True),
            ),
            models.CheckConstraint(
                name="portal_root_absolute", condition=Q(root_path__startswith="/")
            ),
            models.CheckConstraint(
                name="portal_root_normalised",
                condition=~Q(root_path__regex=r"//|/[.]{1,2}(/|$)|.+/$"),
            ),
            # The validators check more; these bind code that writes without the validators.
            models.CheckConstraint(
                name="portal_host_plain",
                condition=Q(host="") | Q(host__regex=r"^[A-Za-z0-9_:][A-Za-z0-9_.:%-]*$"),
            ),
            models.CheckConstraint(
                name="portal_machine_plain",
                condition=Q(machine="") | Q(machine__regex=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
            ),
            models.CheckConstraint(
                name="portal_username_plain",
                condition=Q(username="") | Q(username__regex=r"^[A-Za-z0-9_.][A-Za-z0-9_.@\\-]*$"),
            ),
            models.CheckConstraint(
                name="portal_port_range", condition=Q(port__gte=1) & Q(port__lte=65535)
            ),
            models.CheckConstraint(
                name="portal_streams_range",
                condition=Q(max_streams__gte=1) & Q(max_streams__lte=32),
            ),
            models.CheckConstraint(
                name="portal_bandwidth_not_negative", condition=Q(bandwidth_limit__gte=0)
            ),
            models.CheckConstraint(
                name="portal_state_known", condition=Q(state__in=PortalState.values)
            ),
            models.CheckConstraint(
                name="portal_health_known", condition=Q(health__in=PortalHealth.values)
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Check each field, then normalise the root and the host key."""
        super().clean_fields(exclude)
        checked = {"root_path", "host_key"} - set(exclude or ())
        if "root_path" in checked:
            self.root_path = root_path_normalise(self.root_path)
        if "host_key" in checked and self.host_key:
            self.host_key = host_key_parse(self.host_key).line

    def clean(self) -> None:
        """Name the wrong field: the constraint behind this check names none."""
        if self.kind not in KINDS:
            return  # The field's own check says so.
        required = KINDS[self.kind].required
        problems = {name: str(text) for name, text in required.items() if not getattr(self, name)}
        sentence = _("A portal of the kind “%(kind)s” has no such field; leave it empty.")
        for name in fields_of_others(self.kind):
            if getattr(self, name):
                problems[name] = sentence % {"kind": self.get_kind_display()}
        if problems:
            raise ValidationError(problems)

    @property
    def fingerprint(self) -> str:
        """The pinned key's fingerprint as `ssh-keygen -l` prints it; empty without a pin."""
        return host_key_parse(self.host_key).fingerprint if self.host_key else ""
