"""Django's migration knox.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "cd9264452a47"
down_revision = "5cba21197657"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0021_knox_0001_initial",
    app="knox",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
