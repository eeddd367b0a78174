"""Django's migration jobs.0006_staging_key.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "09c7f8d8bb8b"
down_revision = "edc5c101ae2c"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0039_jobs_0006_staging_key",
    app="jobs",
    name="0006_staging_key",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
