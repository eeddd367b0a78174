"""Django's migration auth.0002_alter_permission_name_max_length.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "c38b88875a05"
down_revision = "328a65304ee7"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0007_auth_0002_alter_permission_name_max_length",
    app="auth",
    name="0002_alter_permission_name_max_length",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
