"""Django's migration knox.0009_extend_authtoken_field.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "76614915d628"
down_revision = "4214b5caf64c"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0029_knox_0009_extend_authtoken_field",
    app="knox",
    name="0009_extend_authtoken_field",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
