"""Django's migration admin.0002_logentry_remove_auto_add.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "bdf8a974f9a4"
down_revision = "6c98694139dc"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0004_admin_0002_logentry_remove_auto_add",
    app="admin",
    name="0002_logentry_remove_auto_add",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
