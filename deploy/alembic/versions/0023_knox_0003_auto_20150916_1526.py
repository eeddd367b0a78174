"""Django's migration knox.0003_auto_20150916_1526.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "fb43990a1932"
down_revision = "351d2bbc5a32"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0023_knox_0003_auto_20150916_1526",
    app="knox",
    name="0003_auto_20150916_1526",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
