"""Django's migration django_rq.0003_alter_dashboard_permission_names.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "5cba21197657"
down_revision = "c2672b2eef75"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0020_django_rq_0003_alter_dashboard_permission_names",
    app="django_rq",
    name="0003_alter_dashboard_permission_names",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
