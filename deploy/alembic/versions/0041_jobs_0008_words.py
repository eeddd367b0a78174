"""Django's migration jobs.0008_words.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "13c320f5d6a1"
down_revision = "aae2e173cc1a"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0041_jobs_0008_words",
    app="jobs",
    name="0008_words",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
