"""Django's migration portals.0002_limits.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "c83cac9dfb2a"
down_revision = "f9fa49e87a8a"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0034_portals_0002_limits",
    app="portals",
    name="0002_limits",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
