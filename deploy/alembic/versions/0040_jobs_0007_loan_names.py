"""Django's migration jobs.0007_loan_names.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "aae2e173cc1a"
down_revision = "09c7f8d8bb8b"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0040_jobs_0007_loan_names",
    app="jobs",
    name="0007_loan_names",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
