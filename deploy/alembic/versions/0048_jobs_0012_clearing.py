"""Django's migration jobs.0012_clearing.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "e0801380dadb"
down_revision = "5acad368144c"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0048_jobs_0012_clearing",
    app="jobs",
    name="0012_clearing",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
