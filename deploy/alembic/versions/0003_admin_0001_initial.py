"""Django's migration admin.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "6c98694139dc"
down_revision = "1b0eef8e6c84"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0003_admin_0001_initial",
    app="admin",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
