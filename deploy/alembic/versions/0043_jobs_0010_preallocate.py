"""Django's migration jobs.0010_preallocate.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "262c1f3ce35b"
down_revision = "9e31b91603a2"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0043_jobs_0010_preallocate",
    app="jobs",
    name="0010_preallocate",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
