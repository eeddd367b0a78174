"""The admin's forms. They take secrets in and never show one."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from portals.stale import Meanwhile, OpenedField, as_opened
from portals.validators import validate_machine

#: The fields of a portal that say which place the connection page is about.
ABOUT = ("kind", "host", "port", "machine", "root_path", "host_key", "real_root")


class SecretTextarea(UnfoldAdminTextareaWidget):
    """A text area that never shows its value, not even after a validation error."""

    def format_value(self, value: Any) -> str:
        """Show nothing."""
        return ""


class FreshForm(forms.ModelForm):
    """A form that undoes nothing that was changed in its row since it was opened.

    It writes what the person has changed. It is refused if that was changed meanwhile, or if a
    field that belongs together with it was (`TOGETHER`).
    """

    TOGETHER: ClassVar[frozenset[str]] = frozenset()

    as_opened = OpenedField()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.initial["as_opened"] = as_opened(self.instance, self._columns())

    def _columns(self) -> list[str]:
        """The columns of the row that this form changes."""
        return [field.name for field in self.instance._meta.fields if field.name in self.fields]

    def take_present(self, cleaned: dict[str, Any]) -> Callable[[Collection[str]], None]:
        """Give the fields that the person has not changed their present value.

        Returns what refuses the form if need be, but not for the fields that it is given. The row
        stays locked until the transaction of the admin's page ends.
        """
        opened = cleaned.pop("as_opened", "")
        rows = type(self.instance)._default_manager.select_for_update()
        row = rows.filter(pk=self.instance.pk).first() if opened else None
        if row is None:
            return lambda _passed_over: None
        meanwhile = Meanwhile(opened, row, self._columns())
        mine, theirs = set(meanwhile.mine(cleaned)), meanwhile.theirs
        same = {name for name in mine if meanwhile.same(name, cleaned)}
        cleaned.update({name: getattr(row, name) for name in theirs if name not in mine})

        def refuse(passed_over: Collection[str]) -> None:
            own = mine - same - set(passed_over)
            hit = own | (self.TOGETHER if own & self.TOGETHER else set())
            names = [name for name in theirs if name in hit - same and name not in passed_over]
            if names or meanwhile.damaged:
                for sentence in meanwhile.sentences(names):
                    self.add_error(None, sentence)

        return refuse


class PortalForm(FreshForm):
    """A portal; for a portal on this machine the form drops the fields of SSH."""

    #: Where the portal is, and how to get in: half of each of two people's is neither's.
    TOGETHER = frozenset(
        ("kind", "host", "port", "username", "machine", "root_path", "credential", "host_key")
    )

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
        refuse_if_stale = self.take_present(cleaned)
        others: tuple[str, ...] = ()
        if cleaned.get("kind") in KINDS:
            others = fields_of_others(cleaned["kind"])
            cleaned |= {name: None if name == "credential" else "" for name in others}
            for name in others:
                self.errors.pop(name, None)
        refuse_if_stale(others)
        return cleaned

    def changes(self) -> dict[str, Any]:
        """The changes for the services; pinned key and machine only if the user typed one."""
        changes = dict(self.cleaned_data)
        for name in ("host_key", "machine"):
            if name not in self.changed_data:
                del changes[name]
        return changes


class ConfirmForm(forms.Form):
    """A person's confirmation of something about a portal, as the page showed the portal."""

    as_opened = OpenedField()

    def changed_since(self, portal: Portal) -> str:
        """Sentences about what of the portal was changed since the page was opened."""
        meanwhile = Meanwhile(self.cleaned_data["as_opened"], portal, ABOUT)
        return " ".join(meanwhile.sentences(meanwhile.theirs))


class PinForm(ConfirmForm):
    """A person's confirmation that a host key is the right one."""

    host_key = forms.CharField(widget=forms.HiddenInput, validators=[validate_host_key])
    compared = forms.BooleanField(
        label=_("I have compared this fingerprint with the one on the host itself."),
        widget=UnfoldBooleanWidget,
        error_messages={"required": _("Compare the fingerprint first, then tick the box.")},
    )


class RootForm(ConfirmForm):
    """A person's confirmation that a root is where the test found it."""

    real_root = forms.CharField(widget=forms.HiddenInput, strip=False, max_length=8200)
    known = forms.BooleanField(
        label=_("I know why the root folder has moved, and this is the right place."),
        widget=UnfoldBooleanWidget,
        error_messages={"required": _("Find out who moved it first, then tick the box.")},
    )


class MachineForm(ConfirmForm):
    """A person's confirmation that a machine has a new name."""

    machine = forms.CharField(
        widget=forms.HiddenInput, max_length=64, validators=[validate_machine]
    )
    known = forms.BooleanField(
        label=_("This is the same machine, with the same folders, under a new name."),
        widget=UnfoldBooleanWidget,
        error_messages={"required": _("Make sure that it is that machine, then tick the box.")},
    )


class CredentialForm(FreshForm):
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
        self.take_present(cleaned)(())
        return cleaned
