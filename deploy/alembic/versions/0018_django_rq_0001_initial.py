"""Django's migration django_rq.0001_initial.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "11fb19db7d39"
down_revision = "8789a27fd4b3"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0018_django_rq_0001_initial",
    app="django_rq",
    name="0001_initial",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
