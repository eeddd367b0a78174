"""Django's migration auth.0012_alter_user_first_name_max_length.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "8789a27fd4b3"
down_revision = "bd04fdd0345b"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0017_auth_0012_alter_user_first_name_max_length",
    app="auth",
    name="0012_alter_user_first_name_max_length",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
