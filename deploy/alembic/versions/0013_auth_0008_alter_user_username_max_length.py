"""Django's migration auth.0008_alter_user_username_max_length.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "93bfe660b59f"
down_revision = "a40a615e36aa"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0013_auth_0008_alter_user_username_max_length",
    app="auth",
    name="0008_alter_user_username_max_length",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
