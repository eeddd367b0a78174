"""Django's migration jobs.0004_parcel_leases.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "78cf8d74adc2"
down_revision = "8dec268cde1c"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0036_jobs_0004_parcel_leases",
    app="jobs",
    name="0004_parcel_leases",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
