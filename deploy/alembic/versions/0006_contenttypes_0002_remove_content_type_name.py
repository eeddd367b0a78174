"""Django's migration contenttypes.0002_remove_content_type_name.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "328a65304ee7"
down_revision = "ea2cc5b4430d"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0006_contenttypes_0002_remove_content_type_name",
    app="contenttypes",
    name="0002_remove_content_type_name",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
