"""The table django_migrations, in which Django notes its migrations.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "967f3dabbc06"
down_revision = None
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0000_django_migrations",
    app="",
    name="",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
