"""Django's migration knox.0002_auto_20150916_1425.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "351d2bbc5a32"
down_revision = "cd9264452a47"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0022_knox_0002_auto_20150916_1425",
    app="knox",
    name="0002_auto_20150916_1425",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
