"""Django's migration knox.0007_auto_20190111_0542.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "7a58b4519790"
down_revision = "163dce555490"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0027_knox_0007_auto_20190111_0542",
    app="knox",
    name="0007_auto_20190111_0542",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
