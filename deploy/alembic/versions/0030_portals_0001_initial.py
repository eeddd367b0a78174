"""Django's migration portals.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "4dce0e9b856c"
down_revision = "76614915d628"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0030_portals_0001_initial",
    app="portals",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
