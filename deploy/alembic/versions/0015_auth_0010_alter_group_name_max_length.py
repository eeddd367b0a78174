"""Django's migration auth.0010_alter_group_name_max_length.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "a8cb4c49c391"
down_revision = "60b36dbf5625"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0015_auth_0010_alter_group_name_max_length",
    app="auth",
    name="0010_alter_group_name_max_length",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
