"""Django's migration jobs.0005_turn_index.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "7d056638a81e"
down_revision = "78cf8d74adc2"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0037_jobs_0005_turn_index",
    app="jobs",
    name="0005_turn_index",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
