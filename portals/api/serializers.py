"""How portals and credentials look as JSON. No secret has a way out of here."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from portals.models import Credential, Portal, PortalHealth


class PortalSerializer(serializers.ModelSerializer[Portal]):
    """A portal; its credential goes by name."""

    credential = serializers.SlugRelatedField(
        slug_field="name",
        queryset=Credential.objects.all(),
        required=False,
        allow_null=True,
    )
    fingerprint = serializers.CharField(read_only=True)

    class Meta:
        model = Portal
        fields: ClassVar = [
            "id",
            "name",
            "kind",
            "host",
            "port",
            "username",
            "root_path",
            "credential",
            "host_key",
            "fingerprint",
            "max_streams",
            "max_jobs",
            "bandwidth_limit",
            "state",
            "health",
            "health_message",
            "capabilities",
            "checked_at",
            "created_at",
            "updated_at",
        ]
        # Written by tests of the connection alone.
        read_only_fields: ClassVar = ["health", "health_message", "capabilities", "checked_at"]


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    """A credential; `secret` goes in and never comes out. On update, empty keeps it."""

    secret = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        style={"input_type": "password"},
    )
    has_secret = serializers.BooleanField(read_only=True)

    class Meta:
        model = Credential
        fields: ClassVar = [
            "id",
            "name",
            "kind",
            "key_path",
            "secret",
            "has_secret",
            "created_at",
            "updated_at",
        ]

    def validate_kind(self, kind: str) -> str:
        """Keep the kind: what a portal was tested with does not turn into something else."""
        if self.instance is not None and kind != self.instance.kind:
            raise serializers.ValidationError(
                _("The kind of a credential stays; make a new credential instead.")
            )
        return kind


class HostKeySerializer(serializers.Serializer[Any]):
    """A host's public key; the fingerprint is the one `ssh-keygen -l` prints."""

    host_key = serializers.CharField(source="line")
    fingerprint = serializers.CharField(read_only=True)


class FindingSerializer(serializers.Serializer[Any]):
    """What a connection test found. `offer` is a key to compare and pin, not yet trusted."""

    health = serializers.ChoiceField(choices=PortalHealth.choices)
    code = serializers.CharField()
    message = serializers.CharField()
    offer = HostKeySerializer(allow_null=True)
    portal = serializers.SerializerMethodField()

    def get_portal(self, finding: Any) -> dict[str, Any]:
        """The portal as it is stored after the test."""
        return dict(PortalSerializer(self.context["portal"], context=self.context).data)
