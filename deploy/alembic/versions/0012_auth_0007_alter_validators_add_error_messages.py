"""Django's migration auth.0007_alter_validators_add_error_messages.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "a40a615e36aa"
down_revision = "5b870675c28e"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0012_auth_0007_alter_validators_add_error_messages",
    app="auth",
    name="0007_alter_validators_add_error_messages",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
