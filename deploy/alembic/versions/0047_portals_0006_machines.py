"""Django's migration portals.0006_machines.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "5acad368144c"
down_revision = "ec8c79c9d02d"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0047_portals_0006_machines",
    app="portals",
    name="0006_machines",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
