"""The admin's forms. They take secrets in and never show one."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from portals.host_keys import validate_host_key
from portals.kinds import KINDS, fields_of_others
from portals.models import Credential, CredentialKind, Portal
from portals.services import secret_clean
from portals.validators import validate_machine


class SecretTextarea(UnfoldAdminTextareaWidget):
    """A text area that never shows its value, not even after a validation error."""

    def format_value(self, value: Any) -> str:
        """Show nothing."""
        return ""


class PortalForm(forms.ModelForm):
    """A portal; for a portal on this machine the form drops the fields of SSH."""

    class Meta:
        model = Portal
        fields = (
            "name",
            "kind",
            "host",
            "port",
            "username",
            "credential",
            "host_key",
            "machine",
            "root_path",
            "max_streams",
            "max_jobs",
            "bandwidth_limit",
            "state",
        )
        widgets: ClassVar = {"host_key": UnfoldAdminTextareaWidget(attrs={"rows": 3})}

    def clean(self) -> dict[str, Any]:
        """Empty the fields that the page hides for a portal of the chosen kind."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("kind") in KINDS:
            others = fields_of_others(cleaned["kind"])
            cleaned |= {name: None if name == "credential" else "" for name in others}
            for name in others:
                self.errors.pop(name, None)
        return cleaned

    def changes(self) -> dict[str, Any]:
        """The changes for the services; pinned key and machine only if the user typed one."""
        changes = dict(self.cleaned_data)
        for name in ("host_key", "machine"):
            if name not in self.changed_data:
                del changes[name]
        return changes


class PinForm(forms.Form):
    """A person's confirmation that a host key is the right one."""

    host_key = forms.CharField(widget=forms.HiddenInput, validators=[validate_host_key])
    compared = forms.BooleanField(
        label=_("I have compared this fingerprint with the one on the host itself."),
        widget=UnfoldBooleanWidget,
        error_messages={"required": _("Compare the fingerprint first, then tick the box.")},
    )


class RootForm(forms.Form):
    """A person's confirmation that a root is where the test found it."""

    real_root = forms.CharField(widget=forms.HiddenInput, strip=False, max_length=8200)
    known = forms.BooleanField(
        label=_("I know why the root folder has moved, and this is the right place."),
        widget=UnfoldBooleanWidget,
        error_messages={"required": _("Find out who moved it first, then tick the box.")},
    )


class MachineForm(forms.Form):
    """A person's confirmation that a machine has a new name."""

    machine = forms.CharField(
        widget=forms.HiddenInput, max_length=64, validators=[validate_machine]
    )
    known = forms.BooleanField(
        label=_("This is the same machine, with the same folders, under a new name."),
        widget=UnfoldBooleanWidget,
        error_messages={"required": _("Make sure that it is that machine, then tick the box.")},
    )


class CredentialForm(forms.ModelForm):
    """A credential; an empty secret keeps the stored one."""

    #: Kind -> the field of the form that takes its secret.
    SECRET_FIELDS: ClassVar = {
        CredentialKind.PASSWORD: "password",
        CredentialKind.PRIVATE_KEY: "private_key",
    }

    password = forms.CharField(
        label=_("Password"),
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )
    private_key = forms.CharField(
        label=_("Private key"),
        required=False,
        strip=False,
        widget=SecretTextarea(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=_("The whole text of the key file, without a passphrase."),
    )

    class Meta:
        model = Credential
        fields = ("name", "kind", "key_path")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None or "kind" not in self.fields:
            return
        self.fields["kind"].disabled = True  # Another kind needs a new credential.
        keep = _("Leave it empty to keep the stored one. Ketter never shows the stored one.")
        for name in self.SECRET_FIELDS.values():
            self.fields[name].help_text = keep

    def clean(self) -> dict[str, Any]:
        """Check the secret of this kind and drop the values of the other kinds."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        kind = cleaned.get("kind", "")
        if kind != CredentialKind.KEY_FILE:
            cleaned["key_path"] = ""
            self.errors.pop("key_path", None)
        field = self.SECRET_FIELDS.get(kind)
        cleaned["secret"] = cleaned.get(field, "") if field else ""
        if field and (cleaned["secret"] or self.instance.pk is None):
            try:
                secret_clean(kind, cleaned["secret"])
            except ValidationError as error:
                self.add_error(field, error.messages)
        return cleaned
