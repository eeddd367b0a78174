"""Django's migration sessions.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "b151be3eb92b"
down_revision = "4dce0e9b856c"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0031_sessions_0001_initial",
    app="sessions",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
