"""Django's migration jobs.0003_life.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "8dec268cde1c"
down_revision = "c83cac9dfb2a"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0035_jobs_0003_life",
    app="jobs",
    name="0003_life",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
