"""Django's migration portals.0005_real_root_default.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "ec8c79c9d02d"
down_revision = "78f55e03f9b5"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0046_portals_0005_real_root_default",
    app="portals",
    name="0005_real_root_default",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
