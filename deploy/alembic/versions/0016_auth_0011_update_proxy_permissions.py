"""Django's migration auth.0011_update_proxy_permissions.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "bd04fdd0345b"
down_revision = "a8cb4c49c391"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0016_auth_0011_update_proxy_permissions",
    app="auth",
    name="0011_update_proxy_permissions",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
