"""The two groups that come with Ketter, and what they may do.

Each app grants its permissions in a post_migrate receiver. A permission that
an administrator adds to a group by hand stays; one that an administrator takes
away comes back with the next migrate. For other needs, make other groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps as installed_apps
from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import DEFAULT_DB_ALIAS, transaction

OPERATORS = "operators"
VIEWERS = "viewers"


def group_grant(
    group: str,
    permissions: Iterable[str],
    *,
    using: str = DEFAULT_DB_ALIAS,
    apps: Apps = installed_apps,
) -> None:
    """Create the group if it is missing, and grant the permissions (`app_label.codename`).

    Post_migrate receivers call this; they pass on `using` and `apps` from the
    signal. It is safe to repeat. Django creates an app's permissions in a
    receiver of the same signal that may run later, so this function creates
    them first. Raises LookupError if a permission is unknown.
    """
    wanted = set(permissions)
    if not _migrated(apps, wanted):
        return  # `migrate` ran for some of the apps only; a later run grants.
    group_model, permission_model = (apps.get_model("auth", n) for n in ("Group", "Permission"))
    with transaction.atomic(using=using):
        for label in sorted({name.partition(".")[0] for name in wanted}):
            config = installed_apps.get_app_config(label)
            create_permissions(config, verbosity=0, using=using, apps=apps)
        found = {
            f"{permission.content_type.app_label}.{permission.codename}": permission
            for permission in permission_model.objects.using(using)
            .filter(codename__in=[name.partition(".")[2] for name in wanted])
            .select_related("content_type")
        }
        if missing := wanted - found.keys():
            raise LookupError(f"no such permission: {', '.join(sorted(missing))}")
        row, _created = group_model.objects.using(using).get_or_create(name=group)
        row.permissions.add(*(found[name] for name in wanted))


def _migrated(apps: Apps, permissions: set[str]) -> bool:
    """True if the tables behind the permissions and those of `auth` exist."""
    labels = {name.partition(".")[0] for name in permissions}
    known = {config.label for config in apps.get_app_configs() if any(config.get_models())}
    return labels | {"auth", "contenttypes"} <= known


def portals_granted(*, using: str, apps: Apps = installed_apps, **_signal: Any) -> None:
    """Grant both groups their permissions on portals; a post_migrate receiver."""
    views = ["portals.view_portal", "portals.view_credential"]
    group_grant(VIEWERS, views, using=using, apps=apps)
    group_grant(OPERATORS, [*views, "portals.test_portal"], using=using, apps=apps)
