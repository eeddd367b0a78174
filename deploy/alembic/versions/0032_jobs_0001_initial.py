"""Django's migration jobs.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "b7483d83f36a"
down_revision = "b151be3eb92b"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0032_jobs_0001_initial",
    app="jobs",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
