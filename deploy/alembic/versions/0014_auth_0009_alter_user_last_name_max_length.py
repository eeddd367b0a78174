"""Django's migration auth.0009_alter_user_last_name_max_length.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "60b36dbf5625"
down_revision = "93bfe660b59f"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0014_auth_0009_alter_user_last_name_max_length",
    app="auth",
    name="0009_alter_user_last_name_max_length",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
