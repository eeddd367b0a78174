"""Django's migration auth.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "1b0eef8e6c84"
down_revision = "2a86ff95d1e2"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0002_auth_0001_initial",
    app="auth",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
