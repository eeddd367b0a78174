"""Portals and credentials as JSON. No serializer gives out a secret."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from portals.models import Credential, Portal, PortalHealth
from portals.validators import validate_machine


class PortalSerializer(serializers.ModelSerializer[Portal]):
    """A portal; `credential` is the name of its credential."""

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
            "machine",
            "root_path",
            "credential",
            "host_key",
            "fingerprint",
            "max_streams",
            "max_jobs",
            "bandwidth_limit",
            "state",
            "real_root",
            "root_confirmed_at",
            "health",
            "health_message",
            "capabilities",
            "checked_at",
            "created_at",
            "updated_at",
        ]
        # Only connection tests, jobs and `confirm_root` write these.
        read_only_fields: ClassVar = [
            "real_root",
            "root_confirmed_at",
            "health",
            "health_message",
            "capabilities",
            "checked_at",
        ]


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    """A credential; `secret` is write-only. On update, an empty one keeps the stored secret."""

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
        """Refuse another kind: the portals of this credential were tested with the present one."""
        if self.instance is not None and kind != self.instance.kind:
            raise serializers.ValidationError(
                _("The kind of a credential cannot be changed; make a new credential instead.")
            )
        return kind


class HostKeySerializer(serializers.Serializer[Any]):
    """A host's public key; the fingerprint is the one `ssh-keygen -l` prints."""

    host_key = serializers.CharField(source="line")
    fingerprint = serializers.CharField(read_only=True)


class RootSerializer(serializers.Serializer[Any]):
    """A root's real path, as `moved_to` of a test gives it; "hex:" and digits if not UTF-8."""

    real_root = serializers.CharField(trim_whitespace=False, max_length=8200)


class MachineSerializer(serializers.Serializer[Any]):
    """The present name of a portal's machine, as KETTER_MACHINE has it there."""

    machine = serializers.CharField(max_length=64, validators=[validate_machine])


class FindingSerializer(serializers.Serializer[Any]):
    """The result of a connection test.

    `offer` is the key that the host shows, to compare and pin; `moved_to` is the root's real
    path if it differs from the recorded one, else empty. Ketter trusts neither yet.
    """

    health = serializers.ChoiceField(choices=PortalHealth.choices)
    code = serializers.CharField()
    message = serializers.CharField()
    offer = HostKeySerializer(allow_null=True)
    moved_to = serializers.CharField()
    portal = serializers.SerializerMethodField()

    def get_portal(self, finding: Any) -> dict[str, Any]:
        """The portal as it is stored after the test."""
        return dict(PortalSerializer(self.context["portal"], context=self.context).data)
