"""Django's migration jobs.0011_staging_key_default.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "78f55e03f9b5"
down_revision = "3b30b4c83eaf"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0045_jobs_0011_staging_key_default",
    app="jobs",
    name="0011_staging_key_default",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
