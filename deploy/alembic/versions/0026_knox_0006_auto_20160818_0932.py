"""Django's migration knox.0006_auto_20160818_0932.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "163dce555490"
down_revision = "feb33ad7dd11"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0026_knox_0006_auto_20160818_0932",
    app="knox",
    name="0006_auto_20160818_0932",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
