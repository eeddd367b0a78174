"""Django's migration portals.0004_words.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "3b30b4c83eaf"
down_revision = "262c1f3ce35b"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0044_portals_0004_words",
    app="portals",
    name="0004_words",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
