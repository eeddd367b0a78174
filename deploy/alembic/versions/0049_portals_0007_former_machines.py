"""Django's migration portals.0007_former_machines.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "f9180d6fcd13"
down_revision = "e0801380dadb"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0049_portals_0007_former_machines",
    app="portals",
    name="0007_former_machines",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
