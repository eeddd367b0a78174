"""Django's migration portals.0003_real_root.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "edc5c101ae2c"
down_revision = "7d056638a81e"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0038_portals_0003_real_root",
    app="portals",
    name="0003_real_root",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
