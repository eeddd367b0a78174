"""Django's migration django_rq.0002_delete_queue_create_dashboard.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "c2672b2eef75"
down_revision = "11fb19db7d39"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0019_django_rq_0002_delete_queue_create_dashboard",
    app="django_rq",
    name="0002_delete_queue_create_dashboard",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
