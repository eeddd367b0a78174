"""Django's migration contenttypes.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "2a86ff95d1e2"
down_revision = "967f3dabbc06"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0001_contenttypes_0001_initial",
    app="contenttypes",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
