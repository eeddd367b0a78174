"""Portals and credentials in the admin."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

import engine
from portals import services
from portals.errors import OtherMachine, PortalError
from portals.findings import size
from portals.forms import ABOUT, CredentialForm, MachineForm, PinForm, PortalForm, RootForm
from portals.host_keys import host_key_parse
from portals.kinds import KINDS
from portals.machines import machine_rename, machines_alive, renamed_to, why_not
from portals.models import (
    Credential,
    CredentialKind,
    Portal,
    PortalHealth,
)
from portals.roots import shown
from portals.stale import as_opened

HEALTH_COLOURS = {
    PortalHealth.UNKNOWN: "info",
    PortalHealth.OK: "success",
    PortalHealth.FAILING: "danger",
    PortalHealth.HOST_KEY_CHANGED: "danger",
}


#: The page's JavaScript condition for a field that no person sees.
NEVER = "false"


def shown_if_kind(kind: str) -> str:
    """The page's JavaScript condition for a field; a page without a form shows all fields."""
    return f"typeof kind === 'undefined' || kind == '{kind}'"


@admin.register(Portal)
class PortalAdmin(ModelAdmin):
    """Portals, with a page that tests the connection and pins host keys."""

    form = PortalForm
    list_display = ("name", "place", "state", "health_label", "checked_at")
    list_filter = ("kind", "machine", "state", "health")
    search_fields = ("name", "host", "root_path")
    readonly_fields = ("fingerprint", "real_place", "health", "health_message", "checked_at")
    fieldsets: ClassVar = (
        (None, {"fields": (*PortalForm.Meta.fields, "as_opened")}),
        (_("Last test"), {"fields": readonly_fields}),
    )
    conditional_fields: ClassVar = {
        "as_opened": NEVER,
        **{
            name: shown_if_kind(kind)
            for kind, each in KINDS.items()
            for name in (*each.fields, *each.shown)
        },
    }
    actions_row = ("connection",)
    actions_detail = ("connection",)

    @display(description=_("place"))
    def place(self, portal: Portal) -> str:
        """Host or machine, and folder, in one, as scp writes them."""
        user = f"{portal.username}@" if portal.username else ""
        host = portal.host or portal.machine
        return f"{user}{host}:{portal.root_path}" if host else portal.root_path

    @display(description=_("health"), ordering="health", label=HEALTH_COLOURS)
    def health_label(self, portal: Portal) -> tuple[str, str]:
        """The health in its colour."""
        return portal.health, portal.get_health_display()

    @display(description=_("fingerprint"), empty_value="-")
    def fingerprint(self, portal: Portal) -> str:
        """The pinned key as `ssh-keygen -l` names it."""
        try:
            return portal.fingerprint
        except ValidationError:
            return ""  # The form beside it says what is wrong with the key.

    @display(description=_("root folder, links resolved"), empty_value="-")
    def real_place(self, portal: Portal) -> str:
        """The recorded real path of the root."""
        return shown(portal.real_root)

    def get_fieldsets(self, request: HttpRequest, obj: Portal | None = None) -> Any:
        """Show the last test, which a new portal does not have."""
        if obj and self.has_change_permission(request, obj):
            return self.fieldsets
        first = (None, {"fields": PortalForm.Meta.fields})
        return (first, *self.fieldsets[1:]) if obj else (first,)

    def save_model(self, request: HttpRequest, obj: Portal, form: PortalForm, change: bool) -> None:
        """Write through the services, as the API does."""
        if change:
            services.portal_update(obj, **form.changes())
            return
        obj.pk = services.portal_create(**form.changes()).pk
        obj.refresh_from_db()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Report that jobs protect a portal, instead of a missing permission to delete jobs."""
        rows, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return rows, counts, set() if protected else lacking, protected

    def has_test_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """True if this user may have Ketter connect to a portal."""
        return bool(request.user.has_perm("portals.test_portal"))

    @action(
        description=_("Test connection"), url_path="connection", icon="lan", permissions=["test"]
    )
    def connection(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """The page that tests a portal and offers the host's key to be pinned.

        A GET shows the page. A POST of one of its forms tests the portal, pins the key,
        confirms the root folder or the new name of the machine.
        """
        portal = self.get_object(request, object_id)
        if portal is None or not self.has_view_permission(request, portal):
            raise Http404
        match request.POST.get("verb"):
            case "test":
                return self._test(request, portal)
            case "pin":
                return self._pin(request, portal)
            case "confirm_root":
                return self._confirm_root(request, portal)
            case "rename_machine":
                return self._rename_machine(request, portal)
        return self._connection_page(request, portal)

    def _test(self, request: HttpRequest, portal: Portal) -> HttpResponseBase:
        try:
            finding = services.portal_test(portal)
        except PortalError as error:
            messages.error(request, str(error))
            return self._connection_page(request, portal)
        pin = root = None
        if finding.offer:
            pin = PinForm(initial=_shows(portal, host_key=finding.offer.line))
        if finding.moved_to:
            root = RootForm(initial=_shows(portal, real_root=finding.moved_to))
        if finding.code == OtherMachine.code:
            messages.warning(request, finding.message)
        return self._connection_page(request, portal, code=finding.code, offer=pin, root=root)

    def _pin(self, request: HttpRequest, portal: Portal) -> HttpResponseBase:
        if not self.has_change_permission(request, portal):
            raise PermissionDenied
        form = PinForm(request.POST)
        if not form.is_valid():
            return self._connection_page(request, portal, offer=form)
        if stale := form.changed_since(portal):
            messages.error(request, stale)
            return self._connection_page(request, portal)
        services.portal_pin_host_key(portal, line=form.cleaned_data["host_key"])
        words = {"name": portal.name, "fingerprint": portal.fingerprint}
        done = gettext("The host key %(fingerprint)s is pinned to “%(name)s”.") % words
        self.log_change(request, portal, done)
        messages.success(request, done)
        return HttpResponseRedirect(reverse("admin:portals_portal_connection", args=[portal.pk]))

    def _confirm_root(self, request: HttpRequest, portal: Portal) -> HttpResponseBase:
        if not self.has_change_permission(request, portal):
            raise PermissionDenied
        form = RootForm(request.POST)
        if not form.is_valid():
            return self._connection_page(request, portal, root=form)
        if stale := form.changed_since(portal):
            messages.error(request, stale)
            return self._connection_page(request, portal)
        try:
            services.portal_confirm_root(portal, real_root=form.cleaned_data["real_root"])
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return self._connection_page(request, portal)
        words = {"name": portal.name, "root": shown(portal.real_root)}
        done = gettext("The root folder of “%(name)s” is now %(root)s.") % words
        self.log_change(request, portal, done)
        messages.success(request, done)
        return HttpResponseRedirect(reverse("admin:portals_portal_connection", args=[portal.pk]))

    def _rename_machine(self, request: HttpRequest, portal: Portal) -> HttpResponseBase:
        if not self.has_change_permission(request, portal):
            raise PermissionDenied
        form = MachineForm(request.POST)
        if not form.is_valid():
            return self._connection_page(request, portal, renamed=form)
        if stale := form.changed_since(portal):
            messages.error(request, stale)
            return self._connection_page(request, portal)
        before = portal.machine
        try:
            count = machine_rename(portal=portal, to=form.cleaned_data["machine"])
        except (PortalError, ValidationError) as error:
            messages.error(request, " ".join(getattr(error, "messages", [str(error)])))
            return self._connection_page(request, portal)
        words = {"before": before, "now": form.cleaned_data["machine"], "n": count}
        done = gettext("Machine “%(before)s” is called “%(now)s” now (portals: %(n)d).") % words
        self.log_change(request, portal, done)
        messages.success(request, done)
        return HttpResponseRedirect(reverse("admin:portals_portal_connection", args=[portal.pk]))

    def _connection_page(
        self,
        request: HttpRequest,
        portal: Portal,
        *,
        code: str = "",
        offer: PinForm | None = None,
        root: RootForm | None = None,
        renamed: MachineForm | None = None,
    ) -> TemplateResponse:
        if renamed is None and (name := renamed_to(portal)):
            renamed = MachineForm(initial=_shows(portal, machine=name))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": portal,
            "portal": portal,
            "title": _("Test connection"),
            "subtitle": portal.name,
            "code": code,
            "colour": HEALTH_COLOURS[PortalHealth(portal.health)],
            "seen": _seen(portal),
            "offer": offer,
            "offered": _offered_key(offer),
            "root": root,
            "root_recorded": shown(portal.real_root),
            "root_found": _shown_root(root),
            "no_worker": why_not(portal, machines_alive()) if KINDS[portal.kind].is_here else "",
            "renamed": renamed,
            "may_change": self.has_change_permission(request, portal),
        }
        return TemplateResponse(request, "admin/portals/portal/connection.html", context)


def _shows(portal: Portal, **values: str) -> dict[str, str]:
    """The values of a form on the connection page, with what the page is about."""
    return {**values, "as_opened": as_opened(portal, ABOUT)}


def _offered_key(form: PinForm | None) -> engine.HostKey | None:
    """The key in a pin form, to show its fingerprint; None if the form holds no valid key."""
    if form is None or form["host_key"].errors:
        return None
    return host_key_parse(form["host_key"].value())


def _shown_root(form: RootForm | None) -> str:
    """The real path in a form; empty if the form holds no valid one."""
    try:
        return shown(form["real_root"].value() or "") if form else ""
    except ValueError:
        return ""


def _seen(portal: Portal) -> list[tuple[str, str]]:
    """The capabilities that the last good test found at the host, as rows of a table."""
    seen = portal.capabilities
    if not seen:
        return []
    folding = {True: gettext("yes"), False: gettext("no"), None: gettext("not known")}
    space = gettext("%(free)s of %(total)s") % {
        "free": size(seen["free_bytes"]),
        "total": size(seen["total_bytes"]),
    }
    return [
        (gettext("Host name"), seen["hostname"]),
        (gettext("System"), seen["system"]),
        (gettext("Python"), seen["python"]),
        (gettext("Root folder, links resolved"), seen["realpath"]),
        (gettext("Writable"), folding[seen["writable"]]),
        (gettext("Free space"), space),
        (gettext("Longest name"), gettext("%d bytes") % seen["name_max"]),
        (gettext("Ignores upper and lower case"), folding[seen["case_folding"]]),
        (gettext("Duration of the test"), gettext("%.1f s") % seen["seconds"]),
    ]


@admin.register(Credential)
class CredentialAdmin(ModelAdmin):
    """Credentials; no page shows the stored secret."""

    form = CredentialForm
    list_display = ("name", "kind", "key_path", "updated_at")
    list_filter = ("kind",)
    search_fields = ("name",)
    conditional_fields: ClassVar = {
        "as_opened": NEVER,
        "password": shown_if_kind(CredentialKind.PASSWORD),
        "private_key": shown_if_kind(CredentialKind.PRIVATE_KEY),
        "key_path": shown_if_kind(CredentialKind.KEY_FILE),
    }

    def get_fields(self, request: HttpRequest, obj: Credential | None = None) -> tuple[str, ...]:
        """Name, kind and key file; the secret fields only for users who may change it."""
        known = ("name", "kind", "key_path")
        writable = self.has_change_permission(request, obj) if obj else True
        if not writable:
            return known
        return (*known, *CredentialForm.SECRET_FIELDS.values(), *(["as_opened"] if obj else []))

    @method_decorator(sensitive_post_parameters())
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Keep posted secrets out of error reports."""
        return super().changeform_view(request, *args, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: Credential, form: CredentialForm, change: bool
    ) -> None:
        """Write through the services, as the API does."""
        given = {name: form.cleaned_data[name] for name in ("name", "key_path", "secret")}
        if change:
            services.credential_update(obj, **given)
            return
        obj.pk = services.credential_create(kind=form.cleaned_data["kind"], **given).pk
        obj.refresh_from_db()
