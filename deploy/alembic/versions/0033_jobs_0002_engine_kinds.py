"""Django's migration jobs.0002_engine_kinds.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "f9fa49e87a8a"
down_revision = "b7483d83f36a"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0033_jobs_0002_engine_kinds",
    app="jobs",
    name="0002_engine_kinds",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
