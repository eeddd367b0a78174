"""`/api/portals/` and `/api/credentials/`."""

from __future__ import annotations

from typing import ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import ModelViewSet

from portals import machines, services
from portals.api.filters import CredentialFilterSet, PortalFilterSet
from portals.api.permissions import ModelPermissions
from portals.api.serializers import (
    CredentialSerializer,
    FindingSerializer,
    HostKeySerializer,
    MachineSerializer,
    PortalSerializer,
    RootSerializer,
)
from portals.models import Credential, Portal


class PortalViewSet(ModelViewSet[Portal]):
    """Portals: the places jobs start from and end at."""

    queryset = Portal.objects.select_related("credential")
    serializer_class = PortalSerializer
    filterset_class = PortalFilterSet
    ordering_fields: ClassVar = ["name", "kind", "host", "health", "checked_at", "created_at"]
    permission_classes = (ModelPermissions,)
    action_permissions: ClassVar = {
        "test": "portals.test_portal",
        "pin_host_key": "portals.change_portal",
        "confirm_root": "portals.change_portal",
        "rename_machine": "portals.change_portal",
    }

    def perform_create(self, serializer: BaseSerializer[Portal]) -> None:
        """Register a portal."""
        serializer.instance = services.portal_create(**serializer.validated_data)

    def perform_update(self, serializer: BaseSerializer[Portal]) -> None:
        """Change a portal; a new address drops the pinned key."""
        assert serializer.instance is not None
        services.portal_update(serializer.instance, **serializer.validated_data)

    def perform_destroy(self, instance: Portal) -> None:
        """Remove a portal that no job refers to."""
        services.portal_delete(instance)

    @extend_schema(request=None, responses=FindingSerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str | None = None) -> Response:
        """Connect to the portal and return the finding; a failed test is no HTTP error."""
        portal = self.get_object()
        finding = services.portal_test(portal)
        context = {**self.get_serializer_context(), "portal": portal}
        return Response(FindingSerializer(finding, context=context).data)

    @extend_schema(request=HostKeySerializer, responses=PortalSerializer)
    @action(detail=True, methods=["post"])
    def pin_host_key(self, request: Request, pk: str | None = None) -> Response:
        """Pin a host key that a person has compared with the host's own."""
        portal = self.get_object()
        body = HostKeySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        services.portal_pin_host_key(portal, line=body.validated_data["line"])
        return Response(self.get_serializer(portal).data)

    @extend_schema(request=RootSerializer, responses=PortalSerializer)
    @action(detail=True, methods=["post"])
    def confirm_root(self, request: Request, pk: str | None = None) -> Response:
        """Record this folder as the root, after a test found another one than the recorded one."""
        portal = self.get_object()
        body = RootSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        services.portal_confirm_root(portal, real_root=body.validated_data["real_root"])
        return Response(self.get_serializer(portal).data)

    @extend_schema(request=MachineSerializer, responses=PortalSerializer)
    @action(detail=True, methods=["post"])
    def rename_machine(self, request: Request, pk: str | None = None) -> Response:
        """Note that the portal's machine has another name now, at all portals on it."""
        portal = self.get_object()
        body = MachineSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        machines.machine_rename(portal=portal, to=body.validated_data["machine"])
        portal.refresh_from_db()
        return Response(self.get_serializer(portal).data)


class CredentialViewSet(ModelViewSet[Credential]):
    """Credentials: how Ketter logs in at hosts. Secrets can be written and never read."""

    queryset = Credential.objects.all()
    serializer_class = CredentialSerializer
    filterset_class = CredentialFilterSet
    ordering_fields: ClassVar = ["name", "kind", "created_at", "updated_at"]
    permission_classes = (ModelPermissions,)

    def perform_create(self, serializer: BaseSerializer[Credential]) -> None:
        """Register a credential."""
        serializer.instance = services.credential_create(**serializer.validated_data)

    def perform_update(self, serializer: BaseSerializer[Credential]) -> None:
        """Change a credential; an empty or missing secret keeps the stored one."""
        assert serializer.instance is not None
        changes = {k: v for k, v in serializer.validated_data.items() if k != "kind"}
        services.credential_update(serializer.instance, **changes)

    def perform_destroy(self, instance: Credential) -> None:
        """Remove a credential that no portal uses."""
        services.credential_delete(instance)
