"""Django's migration auth.0005_alter_user_last_login_null.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "c12fb7a17643"
down_revision = "3b68a96def43"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0010_auth_0005_alter_user_last_login_null",
    app="auth",
    name="0005_alter_user_last_login_null",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
