"""Django's migration auth.0003_alter_user_email_max_length.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "3c128ef23c80"
down_revision = "c38b88875a05"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0008_auth_0003_alter_user_email_max_length",
    app="auth",
    name="0003_alter_user_email_max_length",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
