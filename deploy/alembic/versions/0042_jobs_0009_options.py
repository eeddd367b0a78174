"""Django's migration jobs.0009_options.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "9e31b91603a2"
down_revision = "13c320f5d6a1"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0042_jobs_0009_options",
    app="jobs",
    name="0009_options",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
