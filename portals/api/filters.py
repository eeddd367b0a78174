"""The filters of the lists of portals and credentials."""

from __future__ import annotations

import django_filters
from django.utils.translation import gettext_lazy as _

from portals.kinds import PortalKind
from portals.models import (
    Credential,
    CredentialKind,
    Portal,
    PortalHealth,
    PortalState,
)


class PortalFilterSet(django_filters.FilterSet):
    """Portals by name, place, machine, state and health; a request may repeat a choice."""

    name = django_filters.CharFilter()
    search = django_filters.CharFilter("name", lookup_expr="icontains", label=_("part of the name"))
    host = django_filters.CharFilter(lookup_expr="iexact")
    machine = django_filters.CharFilter()
    kind = django_filters.MultipleChoiceFilter(choices=PortalKind.choices)
    state = django_filters.MultipleChoiceFilter(choices=PortalState.choices)
    health = django_filters.MultipleChoiceFilter(choices=PortalHealth.choices)
    credential = django_filters.CharFilter("credential__name")

    class Meta:
        model = Portal
        fields = ()


class CredentialFilterSet(django_filters.FilterSet):
    """Credentials by name and kind."""

    name = django_filters.CharFilter()
    kind = django_filters.MultipleChoiceFilter(choices=CredentialKind.choices)

    class Meta:
        model = Credential
        fields = ()
