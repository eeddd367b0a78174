"""Django's migration auth.0004_alter_user_username_opts.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "3b68a96def43"
down_revision = "3c128ef23c80"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0009_auth_0004_alter_user_username_opts",
    app="auth",
    name="0004_alter_user_username_opts",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
